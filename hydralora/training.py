"""One run, from a recipe to a saved adapter and its measurements."""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from hydralora.data.batches import LengthGroupedBatches, collate
from hydralora.data.templates import Encoded
from hydralora.errors import RunError
from hydralora.evaluation import evaluate
from hydralora.gates import live_gates, load_balance, mean_gates, normalised_entropy
from hydralora.loss import answer_logits, answer_loss
from hydralora.models import pick_device
from hydralora.parallel import Processes, this_process
from hydralora.preparation import Prepared, prepare
from hydralora.recipe import LaunchSettings, Recipe, TrainingSettings
from hydralora.results import describe_run, measure_heads, save_adapter
from hydralora.tuner.model import hydra_layers

LIVE_ROWS = 32  # held-out rows in the evaluations while training; the full set is measured before and after

OnEvent = Callable[[dict[str, Any]], None]


class _StopAsked(Exception):
    """`should_stop` was true between two pieces of work outside the training steps."""


def train(
    recipe: Recipe,
    output: str | Path,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run a recipe: read, cluster, adapt, measure, train, save, measure again.

    Args:
        recipe: what to do.
        output: folder for the adapter (safetensors, config, model card).
        on_event: called with {step, time, kind: "train" | "eval" | "gates" | "note", ...}; time in seconds since 1970.
        should_stop: asked at every stage, step and evaluated batch; when true, what was learnt so far is saved and
            nothing more is measured.

    Returns:
        The results: rows, components, base and tuned (None when stopped) measurements, parameters, seconds by stage.
        When stopped before the first step, no adapter is saved: step is 0, and base and adapter_hash are None too.

        Of several processes the first evaluates, reports and saves; the results of the others are empty.

    Raises:
        HydraError: the data, the model or a setting can't be used, or the loss stopped being a number.
    """
    processes = this_process()
    processes.connect(recipe.launch.processes, pick_device())
    run = _Reporter(on_event, should_stop) if processes.is_first else _Reporter()
    set_seed(recipe.training.seed)
    begun = _begin(recipe, run, processes)
    if processes.agree(begun is None) or begun is None:
        processes.leave()
        return _nothing_learnt(recipe, run)
    prepared, base = begun
    trainer = _trainer(prepared, recipe, Path(output), run, processes)
    trainer.train()
    processes.leave()
    return _end(prepared, base, recipe, Path(output), run, trainer.state.max_steps) if processes.is_first else {}


def _begin(recipe: Recipe, run: "_Reporter", processes: Processes) -> tuple[Prepared, dict[str, Any]] | None:
    """What training starts from and, in the first process, the base model's scores; None when stopped before."""
    base: dict[str, Any] = {}
    try:
        prepared = prepare(recipe, run.stage)
        run.note("prepared", rows=prepared.counts, k=prepared.k, sizes=prepared.sizes, base=prepared.files.describe())
        if processes.is_first:
            base = _measure(prepared, run, "base", "before")
        run.stage("training")
    except _StopAsked:
        return None
    return prepared, base


def _end(
    prepared: Prepared, base: dict[str, Any], recipe: Recipe, output: Path, run: "_Reporter", max_steps: int
) -> dict[str, Any]:
    """Save, measure again, and put the results together."""
    adapter_hash = _save(prepared, recipe, output, run)
    stopped = run.step < max_steps
    tuned, heads = None, None
    if not stopped:
        try:
            tuned = _measure(prepared, run, "tuned", "after")
            heads = measure_heads(prepared)
        except _StopAsked:
            stopped = True
    run.finish_stage()
    return describe_run(prepared, base, tuned, heads, run.seconds) | {
        "step": run.step,
        "max_steps": max_steps,
        "stopped": stopped,
        "adapter_hash": adapter_hash,
    }


class _Reporter:
    """Events with step and time, and the seconds that each stage took; stops between two of them on request."""

    def __init__(self, on_event: OnEvent = lambda event: None, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.on_event = on_event
        self.should_stop = should_stop
        self.step = 0
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since = time.monotonic()

    def event(self, kind: str, **numbers: Any) -> None:
        self.on_event({"step": self.step, "time": time.time(), "kind": kind} | numbers)

    def note(self, message: str, **numbers: Any) -> None:
        self.event("note", message=message, **numbers)

    def stage(self, name: str) -> None:
        self.finish_stage()
        self._stage, self._since = name, time.monotonic()
        self.event("note", stage=name)
        self._stop_if_asked()

    def finish_stage(self) -> None:
        if self._stage:
            self.seconds[self._stage] = round(time.monotonic() - self._since, 2)
        self._stage = None

    def progress(self, done: int, total: int) -> None:
        self.event("note", done=done, total=total)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            self.finish_stage()
            raise _StopAsked


def _measure(prepared: Prepared, run: _Reporter, name: str, split: str) -> dict[str, Any]:
    run.stage(f"evaluating the {name} model")
    scores = evaluate(prepared.model, prepared.heldout, prepared.tokenizer.pad_token_id, run.progress)
    run.event("eval", split=split, **scores)
    return scores


def _save(prepared: Prepared, recipe: Recipe, output: Path, run: _Reporter) -> str:
    prepared.model.eval()
    trained = (parameter for parameter in prepared.model.parameters() if parameter.requires_grad)
    if not all(parameter.isfinite().all() for parameter in trained):
        raise _diverged(run.step)
    return save_adapter(prepared.model, recipe, prepared, output)


def _nothing_learnt(recipe: Recipe, run: _Reporter) -> dict[str, Any]:
    return {
        "base": None,
        "tuned": None,
        "seconds": run.seconds,
        "step": 0,
        "max_steps": recipe.training.max_steps,
        "stopped": True,
        "adapter_hash": None,
    }


class _AnswerTrainer(Trainer):
    """transformers' Trainer with our batches, and our loss on the answers' tokens alone."""

    def __init__(
        self,
        *args: Any,
        batches: LengthGroupedBatches,
        processes: Processes,
        balance_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the loss below is already divided by the step's answer tokens
        self.batches = batches
        self.processes = processes
        self.tokens_seen = 0
        self.gate_means: torch.Tensor | None = None  # (N,), of the newest step that is logged
        self.gate_entropy = 0.0
        self.balance_weight = balance_weight
        self.balance = 0.0  # sum of the weighted load-balance losses, divided as the steps' losses are

    def get_train_dataloader(self) -> DataLoader:
        return _Loader(cast(Any, self.train_dataset), batch_sampler=self.batches, collate_fn=self.data_collator)

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        own: Any = self.model  # `model` may be a wrapper around it
        due = (self.state.global_step + 1) % self.args.logging_steps == 0 or self.state.global_step == 0
        looked_at = hydra_layers(own) and (due or self.balance_weight)
        watch: AbstractContextManager[list[torch.Tensor]] = live_gates(own) if looked_at else nullcontext([])
        with watch as passes:
            logits, targets = answer_logits(own if model is own else _Wrapped(model, own), inputs)
        total = num_items_in_batch if num_items_in_batch is not None else len(targets)
        loss = answer_loss(logits, targets).sum() / total
        tokens = inputs["attention_mask"].bool() & bool(len(targets))  # without a label it stands for no row at all
        self.tokens_seen += int(tokens.sum())
        if looked_at:
            loss = loss + self._look_at(passes[0], tokens)
        return loss * self.processes.count  # whose mean gradient is taken; `total` is the tokens of all

    def _look_at(self, gates: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | float:
        """Remember the gates (modules, batch, tokens, N) for the next event; returns their part of the loss."""
        seen = gates.detach()
        self.gate_means = mean_gates(seen, mask).mean((0, 1)).cpu()
        self.gate_entropy = float(normalised_entropy(seen)[:, mask].mean())
        if not self.balance_weight:
            return 0.0
        balance = load_balance(gates, mask, self.processes.total)
        loss = self.balance_weight * balance / self.current_gradient_accumulation_steps
        self.balance += float(loss.detach())
        return loss

    def take_counts(self) -> tuple[int, float]:
        """Tokens seen, and the sum of the load-balance losses, by all processes since the last call."""
        mine = torch.tensor([self.tokens_seen, self.balance], dtype=torch.float64)
        tokens, balance = self.processes.total(mine).tolist()
        self.tokens_seen, self.balance = 0, 0.0
        return int(tokens), balance


class _Loader(DataLoader):
    """Leaves it to the sampler which rows are this process's; Accelerate's loader would share them out once more."""

    def set_epoch(self, epoch: int) -> None:
        cast(LengthGroupedBatches, self.batch_sampler).set_epoch(epoch)


class _Wrapped:
    """A model whose forward pass goes through the wrapper that adds up gradients; its parts are the model's own."""

    def __init__(self, wrapper: Any, model: Any) -> None:
        self._wrapper = wrapper
        self._model = model

    def __call__(self, **inputs: Any) -> Any:
        return self._wrapper(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Events(TrainerCallback):
    """Trainer's progress as events; stops on request."""

    def __init__(self, run: _Reporter, prepared: Prepared, settings: TrainingSettings, processes: Processes) -> None:
        self.run = run
        self.processes = processes
        self.prepared = prepared
        self.eval_every = settings.eval_every
        count = min(LIVE_ROWS, len(prepared.heldout))  # at random: files are often sorted by task
        self.live_rows = random.Random(settings.seed).sample(prepared.heldout, count)
        self.trainer: _AnswerTrainer | None = None
        self._since = time.monotonic()
        self._logged = 0  # step of the newest event

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()
        self.run.note("training starts", max_steps=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.step = state.global_step
        if self.processes.agree(self.run.should_stop()):
            control.should_training_stop = True
            return
        due = self.eval_every and state.global_step % self.eval_every == 0 and state.global_step < state.max_steps
        if due and self.processes.is_first:  # the others wait for it in the next step
            paused = time.monotonic()
            model = self.prepared.model
            model.eval()
            scores = evaluate(model, self.live_rows, self.prepared.tokenizer.pad_token_id)
            model.train()
            self.run.event("eval", split="live", **scores)
            self._since += time.monotonic() - paused

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.run.step = state.global_step
        trainer, now = self.trainer, time.monotonic()
        assert trainer is not None
        tokens, balance = trainer.take_counts()
        speed = tokens / max(now - self._since, 1e-9)
        self._since = now
        if not math.isfinite(logs["loss"]):
            raise _diverged(state.global_step)
        balance /= state.global_step - self._logged
        self._logged = state.global_step
        self.run.event(
            "train",
            loss=logs["loss"] - balance,  # on the answers alone, as in every evaluation
            learning_rate=logs.get("learning_rate"),
            tokens_per_second=speed,
            **({"balance_loss": balance} if trainer.balance_weight else {}),
        )
        if trainer.gate_means is not None:
            self.run.event("gates", mean_gate=trainer.gate_means.tolist(), entropy=trainer.gate_entropy)


def _diverged(step: int) -> RunError:
    return RunError(f"At step {step} the loss is no longer a number. Lower training.learning_rate, and run again.")


def _trainer(prepared: Prepared, recipe: Recipe, output: Path, run: _Reporter, processes: Processes) -> _AnswerTrainer:
    settings = recipe.training
    rows: Sequence[Encoded] = prepared.train
    lengths = [len(row.input_ids) for row in rows]
    batches = LengthGroupedBatches(lengths, settings.batch_size, settings.seed, processes.count, processes.rank)
    callback = _Events(run, prepared, settings, processes)
    trainer = _AnswerTrainer(
        model=prepared.model,
        args=_arguments(settings, output, prepared.device, recipe.launch),
        train_dataset=rows,
        data_collator=lambda items: collate(items, prepared.tokenizer.pad_token_id),
        batches=batches,
        processes=processes,
        balance_weight=recipe.tuner.balance_weight if recipe.method != "lora" else 0.0,
        callbacks=[callback],
    )
    trainer.remove_callback(_progress_callback())
    callback.trainer = trainer
    if not processes.is_first:
        torch.manual_seed(settings.seed + processes.rank)  # other rows, other dropout
    return trainer


def _arguments(
    settings: TrainingSettings, output: Path, device: str, launch: LaunchSettings | None = None
) -> TrainingArguments:
    sharding = launch.model_dump(include={"fsdp", "fsdp_config", "deepspeed"}, exclude_none=True) if launch else {}
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=settings.max_steps or -1,
        num_train_epochs=settings.epochs or 1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=0.0,
        optim="adamw_torch",
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would report a mean of earlier losses in place of a NaN
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=device.startswith("cuda"),
        dataloader_pin_memory=device.startswith("cuda"),
        remove_unused_columns=False,
        seed=settings.seed,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
        **sharding,
    )
    # On two GPUs Trainer would wrap the model in nn.DataParallel, whose replicas our hooks on the layers never see.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _progress_callback() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback  # events are the only output
