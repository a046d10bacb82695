"""Useful tokens per second of whole training loops: ours, and transformers' Trainer with PEFT's LoRA."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer

from hydralora.bench.contestants import Field
from hydralora.data.dataset import read_dataset
from hydralora.data.encoding import encode_all
from hydralora.models.types import Tokenizer
from hydralora.recipe.settings import TrainingSettings
from hydralora.training.parallel import Processes
from hydralora.training.trainer import GateLosses, answer_trainer, training_arguments

BATCH = 8  # rows
HEADS = 3


def loops_on(field: Field, path: Path, steps: int) -> dict[str, Callable[[int], float]]:
    """Both loops over the rows of a file, as turns that give useful (not padding) tokens/s over `steps` steps.

    In turn i both use the row order of seed i + 1; a warm-up turn is one step. Ours does everything that a run does
    between two evaluations, including recording the gates; the rival is `Trainer` with the rows, a LoRA of
    the same rank and the collator that pads to the longest row of a batch.
    """
    settings = TrainingSettings(max_steps=steps, batch_size=BATCH)
    rows = encode_all(field.tokenizer, read_dataset(path).examples, settings.max_length).rows
    models = {"ours": field.ours(HEADS), "lora": field.lora()}

    def ours(turn: int) -> float:
        arguments = training_arguments(_for_turn(settings, turn), Path(tempfile.gettempdir()), field.device)
        trainer = answer_trainer(
            models["ours"], rows, field.tokenizer.pad_token_id, arguments, Processes(), GateLosses()
        )
        start = time.perf_counter()
        trainer.train()
        return trainer.tokens_seen / (time.perf_counter() - start)

    def lora(turn: int) -> float:
        arguments = training_arguments(_for_turn(settings, turn), Path(tempfile.gettempdir()), field.device)
        pad = _CountingCollator(field.tokenizer)
        plain = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
        trainer = Trainer(model=models["lora"], args=arguments, train_dataset=plain, data_collator=pad)
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        return pad.tokens / (time.perf_counter() - start)

    return {"ours": ours, "lora": lora}


class _CountingCollator:
    """transformers' padding collator; counts the tokens that are not padding."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pad = DataCollatorForSeq2Seq(tokenizer)
        self.tokens = 0

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._pad(rows)
        self.tokens += int(batch["attention_mask"].sum())
        return batch


def _for_turn(settings: TrainingSettings, turn: int) -> TrainingSettings:
    return settings.model_copy(update={"seed": turn + 1, "max_steps": 1 if turn < 0 else settings.max_steps})
