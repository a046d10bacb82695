"""A trial of a run, which measures a few of its steps and saves nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import TrainerCallback

from hydralora.data.batches import batch_order
from hydralora.data.encoding import Encoded
from hydralora.data.progress import OnProgress, describe_duration, ignore_progress
from hydralora.inference.evaluation import BATCH, evaluate
from hydralora.inference.sample_answers import answer_samples, choose_samples
from hydralora.models.device import pick_device
from hydralora.recipe.settings import Recipe
from hydralora.runs.state import TrialEstimate
from hydralora.training.monitor import LIVE_ROWS
from hydralora.training.parallel import Processes
from hydralora.training.preparation import Prepared, prepare
from hydralora.training.resources import peak_memory
from hydralora.training.sizes import disk_bytes
from hydralora.training.trainer import AnswerTrainer, answer_trainer, gate_losses, training_arguments

PLACES = (0.125, 0.375, 0.625, 0.875)  # quantiles of the batches by size that are timed
STARTING = 8.0  # seconds to start a process and import what it needs
WHOLE_MEASUREMENTS = 2  # of all held-out rows, before and after; one more for the gates if there are heads


def run_trial(recipe: Recipe, on_progress: OnProgress = ignore_progress) -> TrialEstimate:
    """Estimate a run's cost by a trial in this process, which must be fresh since its peak memory is measured.

    Raises:
        HydraError: as the run itself would.
    """
    steps_to_try = len(PLACES) + 1
    began = time.perf_counter()
    prepared = prepare(recipe, lambda stage: on_progress(0, steps_to_try))
    preparing = time.perf_counter() - began
    settings = recipe.training
    order = batch_order([len(row.input_ids) for row in prepared.train], settings.batch_size, settings.seed, 0)
    by_size = sorted(order, key=lambda batch: _padded(prepared.train, batch))
    chosen = [by_size[-1], *(by_size[int(place * len(by_size))] for place in PLACES)]
    pad = prepared.tokenizer.pad_token_id
    longest = sorted(prepared.heldout, key=lambda row: len(row.input_ids))[-LIVE_ROWS:]
    evaluate(prepared.model, longest, pad)  # for its peak memory, and because the first pass is slower
    sample = prepared.heldout[:: max(1, len(prepared.heldout) // LIVE_ROWS)][:LIVE_ROWS]
    began = time.perf_counter()
    evaluate(prepared.model, sample, pad)
    measuring = time.perf_counter() - began
    began = time.perf_counter()
    samples = choose_samples(prepared.heldout, prepared.heldout_labels, settings.sample_prompts, settings.seed)
    answer_samples(prepared.model, prepared.tokenizer, samples)
    answering = time.perf_counter() - began
    clock = _Clock(lambda done: on_progress(done, steps_to_try))
    _try_steps(prepared, recipe, chosen, clock)
    step = sum(clock.seconds[1:]) / len(PLACES)  # the first one warms up
    rows = settings.batch_size * settings.gradient_accumulation
    steps = settings.max_steps or round((settings.epochs or 1) * -(-len(prepared.train) // rows))
    live = steps // settings.eval_every if settings.eval_every else 0
    full_measurements = (WHOLE_MEASUREMENTS + recipe.has_heads) * _evaluated(prepared.heldout)
    measured = live + full_measurements / _evaluated(sample)  # in measurements of the sample
    trained = sum(p.numel() * p.element_size() for p in prepared.model.parameters() if p.requires_grad)
    return TrialEstimate(
        seconds=STARTING + preparing + steps * step + measured * measuring + (live + 2) * answering,
        memory_bytes=peak_memory(prepared.device),
        disk_bytes=disk_bytes(recipe, trained, steps),
        steps=steps,
        step_seconds=step,
    )


def estimate_text(estimate: TrialEstimate) -> str:
    """An estimate in words."""
    memory, disk = estimate.memory_bytes / 2**30, estimate.disk_bytes / 2**20
    return (
        f"About {describe_duration(estimate.seconds)} for {estimate.steps} steps, {memory:.1f} GB of memory at most, "
        f"{disk:.0f} MB on disk"
    )


class _Clock(TrainerCallback):
    """Seconds of each step."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self.on_step = on_step
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)
        self.on_step(len(self.seconds))


class _Chosen:
    """Batches for a trainer, each repeated by the gradient accumulation."""

    def __init__(self, batches: Sequence[list[int]], times: int) -> None:
        self._batches = [batch for batch in batches for _ in range(times)]

    def set_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def _try_steps(prepared: Prepared, recipe: Recipe, chosen: Sequence[list[int]], clock: _Clock) -> None:
    settings = recipe.training.model_copy(update={"max_steps": len(chosen), "epochs": None, "report_to": None})
    with TemporaryDirectory() as folder:
        trainer: AnswerTrainer = answer_trainer(
            prepared.model,
            prepared.train,
            prepared.tokenizer.pad_token_id,
            training_arguments(settings, Path(folder), pick_device(), recipe.launch),
            Processes(),
            gate_losses(recipe),
            clock,
        )
        trainer.batches = _Chosen(chosen, settings.gradient_accumulation)  # type: ignore[assignment]
        trainer.train()


def _evaluated(rows: Sequence[Encoded]) -> int:
    """Number of tokens in an evaluation's batches, including padding, which determines its cost."""
    return sum(_padded(rows, batch) for batch in batch_order([len(row.input_ids) for row in rows], BATCH, 0, 0))


def _padded(rows: Sequence[Encoded], batch: Sequence[int]) -> int:
    return len(batch) * max(len(rows[i].input_ids) for i in batch)
