"""One run, from a recipe to a saved adapter and its measurements."""

import math
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from hydralora.errors import RunError
from hydralora.inference.evaluation import evaluate
from hydralora.inference.sample_answers import answer_samples, choose_samples
from hydralora.models.device import pick_device
from hydralora.recipe.settings import Recipe, TrainingSettings
from hydralora.runs.checkpoints import best_checkpoint
from hydralora.runs.snapshots import save_snapshot, snapshot_steps
from hydralora.training.card import save_adapter, take_adapter
from hydralora.training.parallel import Processes, this_process
from hydralora.training.preparation import Prepared, prepare
from hydralora.training.resources import Usage, peak_memory
from hydralora.training.results import describe_run, measure_heads
from hydralora.training.trainer import AnswerTrainer, all_finite, answer_trainer, check_reporting, training_arguments

LIVE_ROWS = 32  # held-out rows in the evaluations while training; the full set is measured before and after

STEP_SECONDS = 1.0  # between tellings of the step alone
TRAINING_STARTS = "training starts"  # the note of a process that begins, or goes on, with its steps
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Resume:
    """Where an earlier process left a run: its newest checkpoint with its step, and the base model's scores, if any.

    `base` and `data` are what it was trained on, as `BaseModelFiles.describe` and `Prepared.sources` tell; None where
    that is not known.
    """

    step: int
    checkpoint: Path | None
    before: dict[str, Any] | None
    base: dict[str, Any] | None = None
    data: list[dict[str, str]] | None = None


class _StopAsked(Exception):
    """`should_stop` was true between two pieces of work outside the training steps."""


def train(
    recipe: Recipe,
    output: str | Path,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoints: Path | None = None,
    resume: "Resume | None" = None,
    measure_stopped: Callable[[], bool] = lambda: False,
    snapshots: Path | None = None,
) -> dict[str, Any]:
    """Run a recipe: read, cluster, adapt, measure, train, save, measure again.

    Args:
        recipe: what to do.
        output: folder for the adapter (safetensors, config, model card).
        on_event: called with {step, time, kind: "train" | "eval" | "gates" | "note" | "step", ...}; time in seconds
            since 1970. "step" tells the step alone, once a second.
        should_stop: asked at every stage, step and evaluated batch; when true, what was learnt so far is saved and
            nothing more is measured, unless `measure_stopped` is true then.
        checkpoints: folder for checkpoints, as often as the recipe says; none are saved without it.
        resume: where an earlier process left this run.
        snapshots: folder for the weights at a few steps, as many as the recipe says; none are kept without it.

    Returns:
        The results: rows, components, base and tuned (None when stopped) measurements, parameters, seconds by stage.
        When stopped before this process's first step, no adapter is saved: base and adapter_hash are None too.

        Of several processes the first evaluates, reports and saves; the results of the others are empty.

    Raises:
        HydraError: the data, the model or a setting can't be used, or the loss stopped being a number.
    """
    check_reporting(recipe.training.report_to)  # before minutes of measuring
    processes = this_process()
    processes.connect(recipe.launch.processes, pick_device())
    run = _Reporter(on_event, should_stop) if processes.is_first else _Reporter()
    run.step = resume.step if resume else 0
    set_seed(recipe.training.seed)
    begun = _begin(recipe, run, processes, resume)
    if processes.agree(begun is None) or begun is None:
        processes.leave()
        return _nothing_learnt(recipe, run)
    prepared, base = begun
    trainer = _trainer(prepared, recipe, checkpoints, run, processes, snapshots, base.get("loss") or 0.0)
    try:
        if resume and resume.checkpoint:
            trainer.go_on_from(resume.checkpoint)
            run.step = trainer.state.global_step
        else:
            trainer.train()
    except RunError as error:
        kept = best_checkpoint(checkpoints) if checkpoints else None
        if kept is None or not processes.is_first:
            raise
        take_adapter(kept[1], recipe, prepared, Path(output))
        raise RunError(f"{error} The adapter of step {kept[0]}, the best on held-out rows, is kept.") from error
    processes.leave()
    if not processes.is_first:
        return {}
    run.should_stop = lambda: should_stop() and not measure_stopped()
    return _end(prepared, base, recipe, Path(output), run, trainer.state.max_steps)


def _begin(
    recipe: Recipe, run: "_Reporter", processes: Processes, resume: Resume | None
) -> tuple[Prepared, dict[str, Any]] | None:
    """What training starts from and, in the first process, the base model's scores; None when stopped before."""
    base: dict[str, Any] = (resume.before if resume else None) or {}
    try:
        prepared = prepare(recipe, run.stage)
        if resume and resume.step:
            _check_unchanged(resume, prepared)
        model, data = prepared.files.describe(), prepared.sources
        run.note("prepared", rows=prepared.counts, k=prepared.k, sizes=prepared.sizes, base=model, data=data)
        if processes.is_first and not base:
            with prepared.model.disable_adapter():  # heads that start at random behind a started router have an effect
                base = _measure(prepared, recipe, run, "base", "before")
        run.stage("training")
    except _StopAsked:
        return None
    return prepared, base


def _check_unchanged(resume: Resume, prepared: Prepared) -> None:
    """
    Raises:
        RunError: the base model or the data is not what the checkpoint was trained on.
    """
    was = [source["sha256"] for source in resume.data or []]
    found = {
        "data": not was or was == [source["sha256"] for source in prepared.sources],
        "base model": not resume.base or resume.base["hash"] == prepared.files.describe()["hash"],
    }
    if changed := [name for name, same in found.items() if not same]:
        raise RunError(
            f"The {' and the '.join(changed)} changed since step {resume.step}, so training can't go on as it was. Put "
            "back what was there, or start a new run."
        )


def _end(
    prepared: Prepared, base: dict[str, Any], recipe: Recipe, output: Path, run: "_Reporter", max_steps: int
) -> dict[str, Any]:
    """Save, measure again, and put the results together."""
    adapter_hash = _save(prepared, recipe, output, run)
    stopped = run.step < max_steps
    tuned, heads = None, None
    if not (stopped and run.should_stop()):
        try:
            tuned = _measure(prepared, recipe, run, "tuned", "after")
            heads = measure_heads(prepared)
        except _StopAsked:
            stopped = True
    run.finish_stage()
    return describe_run(prepared, base, tuned, heads, run.seconds) | {
        "step": run.step,
        "max_steps": max_steps,
        "stopped": stopped,
        "adapter_hash": adapter_hash,
        "peak_memory_bytes": peak_memory(prepared.device),
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


def _measure(prepared: Prepared, recipe: Recipe, run: _Reporter, name: str, split: str) -> dict[str, Any]:
    run.stage(f"evaluating the {name} model")
    pad, components = prepared.tokenizer.pad_token_id, prepared.heldout_labels
    scores = evaluate(prepared.model, prepared.heldout, pad, run.progress, components)
    run.event("eval", split=split, answers=_answers(prepared, recipe.training), **scores)
    return scores


def _answers(prepared: Prepared, settings: TrainingSettings) -> list[dict[str, str]]:
    """What the model says now to the same few held-out prompts."""
    chosen = choose_samples(prepared.heldout, prepared.heldout_labels, settings.prompts, settings.seed)
    return answer_samples(prepared.model, prepared.tokenizer, chosen)


def _save(prepared: Prepared, recipe: Recipe, output: Path, run: _Reporter) -> str:
    prepared.model.eval()
    if not all_finite(prepared.model):
        raise _diverged(run.step)
    return save_adapter(prepared.model, recipe, prepared, output)


def _nothing_learnt(recipe: Recipe, run: _Reporter) -> dict[str, Any]:
    return {
        "base": None,
        "tuned": None,
        "seconds": run.seconds,
        "step": run.step,
        "max_steps": recipe.training.max_steps,
        "stopped": True,
        "adapter_hash": None,
    }


class _Events(TrainerCallback):
    """Trainer's progress as events; stops on request."""

    def __init__(
        self,
        run: _Reporter,
        prepared: Prepared,
        settings: TrainingSettings,
        processes: Processes,
        saves: bool,
        folder: Path,
        snapshots: Path | None,
    ) -> None:
        self.run = run
        self.processes = processes
        self.prepared = prepared
        self.settings, self.saves = settings, saves
        self.usage = Usage(prepared.device, folder)
        self.snapshots = snapshots if processes.is_first else None
        self.due_snapshots: set[int] = set()
        count = min(LIVE_ROWS, len(prepared.heldout))  # at random: files are often sorted by task
        live = random.Random(settings.seed).sample(range(len(prepared.heldout)), count)
        self.live_rows = [prepared.heldout[i] for i in live]
        self.live_components = [prepared.heldout_labels[i] for i in live]
        self.trainer: AnswerTrainer | None = None
        self.most = math.inf  # a larger loss is no learning any more
        self._since = time.monotonic()
        self._logged = 0  # step of the newest event
        self._told = 0.0  # when a step was told last

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()
        self._logged = self.run.step = state.global_step
        self.run.note(TRAINING_STARTS, max_steps=state.max_steps)
        self.due_snapshots = snapshot_steps(state.max_steps, self.settings.snapshots)
        if state.global_step == 0:
            self._snapshot(0)

    def _snapshot(self, step: int) -> None:
        if self.snapshots and step in self.due_snapshots:
            save_snapshot(self.prepared.model, self.snapshots, step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.step = state.global_step
        if time.monotonic() - self._told >= STEP_SECONDS:
            self._told = time.monotonic()
            self.run.event("step")
        self._snapshot(state.global_step)
        if self.processes.agree(self.run.should_stop()):
            control.should_training_stop = True
            control.should_save = self.saves
            return
        every = self.settings.eval_every
        due = every and state.global_step % every == 0 and state.global_step < state.max_steps
        if due and self.processes.is_first:  # the others wait for it in the next step
            paused = time.monotonic()
            model = self.prepared.model
            model.eval()
            scores = evaluate(model, self.live_rows, self.prepared.tokenizer.pad_token_id, None, self.live_components)
            answers = _answers(self.prepared, self.settings)
            model.train()
            if self.trainer:
                self.trainer.heldout_loss = scores["loss"]
            self.run.event("eval", split="live", answers=answers, **scores)
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
        if self.processes.is_first and logs["loss"] > self.most:
            raise _diverged(state.global_step, logs["loss"])
        balance /= state.global_step - self._logged
        self._logged = state.global_step
        self.run.event(
            "train",
            loss=logs["loss"] - balance,  # on the answers alone, as in every evaluation
            learning_rate=logs.get("learning_rate"),
            gradient_norm=logs.get("grad_norm"),  # before it is clipped
            tokens_per_second=speed,
            usage=self.usage.look(),
            **({"balance_loss": balance} if trainer.balance_weight else {}),
        )
        if trainer.gate_means is not None:
            self.run.event("gates", mean_gate=trainer.gate_means.tolist(), entropy=trainer.gate_entropy)


def _diverged(step: int, loss: float | None = None) -> RunError:
    found = "no longer a number" if loss is None else f"{loss:.1f}, over twice that of a guess and of the base model"
    return RunError(f"At step {step} the loss is {found}. Lower training.learning_rate, and run again.")


def _trainer(
    prepared: Prepared,
    recipe: Recipe,
    checkpoints: Path | None,
    run: _Reporter,
    processes: Processes,
    snapshots: Path | None,
    start: float,
) -> AnswerTrainer:
    settings = recipe.training
    save_every = settings.save_every if checkpoints else 0
    folder = checkpoints or Path(tempfile.gettempdir())  # nothing is written there, but Trainer wants one
    callback = _Events(run, prepared, settings, processes, bool(checkpoints), folder.parent, snapshots)
    trainer = answer_trainer(
        prepared.model,
        prepared.train,
        prepared.tokenizer.pad_token_id,
        training_arguments(settings, folder, prepared.device, recipe.launch, save_every),
        processes,
        recipe.tuner.balance_weight if recipe.has_heads else 0.0,
        callback,
        keep_checkpoints=settings.keep_checkpoints,
    )
    callback.trainer = trainer
    callback.most = 2 * max(start, math.log(len(prepared.tokenizer)))  # the loss of a guess, and of the base model
    if not processes.is_first:
        torch.manual_seed(recipe.training.seed + processes.rank)  # other rows, other dropout
    return trainer
