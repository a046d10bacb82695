"""Observers of training: events, evaluations, snapshots, and requests to stop."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hydralora.data.encoding import Encoded
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import RunError
from hydralora.inference.evaluation import evaluate
from hydralora.inference.sample_answers import answer_samples, choose_samples
from hydralora.recipe.settings import TrainingSettings
from hydralora.runs.events import (
    EvalEvent,
    GatesEvent,
    NoteEvent,
    OnEvent,
    ProgressEvent,
    StepEvent,
    TrainEvent,
)
from hydralora.runs.scores import SampleAnswer, Scores
from hydralora.runs.snapshots import save_snapshot, snapshot_steps
from hydralora.runs.state import Stage
from hydralora.training.parallel import Processes
from hydralora.training.preparation import Prepared
from hydralora.training.resources import UsageMeter
from hydralora.training.stopping import StopRequestedError
from hydralora.training.trainer import AnswerTrainer

LIVE_ROWS = 32  # held-out rows in evaluations during training; before and after, all rows are evaluated
STEP_SECONDS = 1.0  # between step events
TRAINING_STARTS = "training starts"  # the note at the start of training or resuming, with the number of steps


@dataclass(frozen=True)
class Monitor:
    """Callbacks that observe a run and may stop it.

    Attributes:
        on_event: called with each event (`hydralora.runs.events`).
        should_stop: called at every stage, batch and block of the model; if it returns True, the run stops, and what
            it learnt until its last finished step is saved.
        measure_stopped: whether a stopped run is evaluated before it ends.
    """

    on_event: OnEvent = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    measure_stopped: Callable[[], bool] = lambda: False


class Reporter:
    """Reports events with step and time, measures each stage's seconds, and stops between stages on request."""

    def __init__(self, monitor: Monitor | None = None) -> None:
        monitor = monitor or Monitor()
        self.on_event = monitor.on_event
        self.should_stop = monitor.should_stop
        self.step = 0
        self.seconds: dict[str, float] = {}
        self._tokens, self._training_seconds = 0, 0.0
        self._stage: Stage | None = None
        self._since = time.monotonic()

    def train(self, **numbers: object) -> None:
        self.on_event(TrainEvent.model_validate(self._now() | numbers))

    def trained(self, tokens: int, seconds: float) -> None:
        """Count what was trained on, and the time for it without evaluations."""
        self._tokens += tokens
        self._training_seconds += seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Of this process's training; None before its first report."""
        return self._tokens / self._training_seconds if self._training_seconds else None

    def gates(self, mean_gate: list[float], entropy: float) -> None:
        # Rounding may take a mean of ones past 1.
        self.on_event(GatesEvent(**self._now(), mean_gate=[min(gate, 1.0) for gate in mean_gate], entropy=entropy))

    def scores(self, split: str, scores: Scores, answers: list[SampleAnswer]) -> None:
        self.on_event(EvalEvent(**self._now(), split=split, answers=answers, **scores.model_dump()))

    def note(self, **known: object) -> None:
        self.on_event(NoteEvent.model_validate(self._now() | known))

    def stepped(self) -> None:
        self.on_event(StepEvent(**self._now()))

    def stage(self, stage: Stage) -> None:
        """Begin a stage.

        Raises:
            StopRequestedError: the monitor asks to stop.
        """
        self.finish_stage()
        self._stage, self._since = stage, time.monotonic()
        self.note(stage=stage)
        self.check()

    def finish_stage(self) -> None:
        if self._stage:
            self.seconds[self._stage.value] = round(time.monotonic() - self._since, 2)
        self._stage = None

    def progress(self, done: int, total: int) -> None:
        """An `OnProgress` of the stage.

        Raises:
            StopRequestedError: the monitor asks to stop.
        """
        self.on_event(ProgressEvent(**self._now(), done=done, total=total))
        self.check()

    def check(self) -> None:
        """
        Raises:
            StopRequestedError: the monitor asks to stop.
        """
        if self.should_stop():
            self.finish_stage()
            raise StopRequestedError

    def _now(self) -> dict[str, float]:
        return {"step": self.step, "time": time.time()}


def sample_rows(prepared: Prepared, settings: TrainingSettings) -> list[Encoded]:
    """A fixed few held-out rows, to whose prompts the model's answers are shown."""
    return choose_samples(prepared.heldout, prepared.heldout_labels, settings.sample_prompts, settings.seed)


def sample_answers(
    prepared: Prepared, settings: TrainingSettings, on_progress: OnProgress = ignore_progress
) -> list[SampleAnswer]:
    """The model's current answers to those rows' prompts; `on_progress` as in `answer_samples`."""
    return answer_samples(prepared.model, prepared.tokenizer, sample_rows(prepared, settings), on_progress)


def diverged(step: int, loss: float | None = None) -> RunError:
    """The error of a run whose loss is NaN (None) or too large."""
    description = (
        "no longer a number" if loss is None else f"{loss:.1f}, more than twice that of a guess and of the base model"
    )
    return RunError(f"At step {step} the loss is {description}. Lower training.learning_rate, and run again.")


@dataclass
class Watch:
    """State shared by the callbacks of one training.

    Attributes:
        most_loss: a larger loss counts as divergence.
        paused: seconds of evaluations since the last log, which don't count as training.
    """

    reporter: Reporter
    prepared: Prepared
    settings: TrainingSettings
    processes: Processes
    most_loss: float = math.inf
    paused: float = 0.0
    trainer: AnswerTrainer | None = field(default=None, repr=False)


class Reports(TrainerCallback):
    """Reports steps, loss and gates as events; ends the training if the loss diverges."""

    def __init__(self, watch: Watch, folder: Path) -> None:
        self.watch = watch
        self.usage = UsageMeter(watch.prepared.device, folder)
        self._since = time.monotonic()
        self._step_reported = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._since = time.monotonic()
        self.watch.reporter.step = state.global_step
        self.watch.reporter.note(message=TRAINING_STARTS, max_steps=state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        self.watch.reporter.step = state.global_step
        if time.monotonic() - self._step_reported >= STEP_SECONDS:
            self._step_reported = time.monotonic()
            self.watch.reporter.stepped()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **rest: object,
    ) -> None:
        trainer, reporter = self.watch.trainer, self.watch.reporter
        if not logs or "loss" not in logs or trainer is None:
            return
        reporter.step = state.global_step
        tokens, (loss, added) = trainer.take_tokens(), trainer.take_losses()
        now = time.monotonic()
        seconds, self._since, self.watch.paused = now - self._since - self.watch.paused, now, 0.0
        self._check(loss + added, state.global_step)
        reporter.trained(tokens, seconds)
        reporter.train(
            loss=loss,  # on the answers alone, as in every evaluation
            learning_rate=logs.get("learning_rate"),
            gradient_norm=logs.get("grad_norm"),  # before it is clipped
            tokens_per_second=tokens / max(seconds, 1e-9),
            usage=self.usage.look(),
            **({"balance_loss": added} if trainer.gate_losses else {}),
        )
        if trainer.gate_means is not None:
            reporter.gates(trainer.gate_means.tolist(), float(trainer.gate_entropy))

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise diverged(step)
        if self.watch.processes.is_first and loss > self.watch.most_loss:
            raise diverged(step, loss)


class Snapshots(TrainerCallback):
    """Saves A and the heads at a few steps, including before the first."""

    def __init__(self, watch: Watch, folder: Path) -> None:
        self.watch = watch
        self.folder = folder
        self._due: set[int] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._due = snapshot_steps(state.max_steps, self.watch.settings.snapshots)
        if state.global_step == 0:
            self._keep(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        self._keep(state.global_step)

    def _keep(self, step: int) -> None:
        if step in self._due:
            save_snapshot(self.watch.prepared.model, self.folder, step)


class LiveEvaluations(TrainerCallback):
    """Evaluates a sample of the held-out rows while the training pauses; must come after `StopOnRequest`.

    A stop meanwhile ends the training after this step, with a checkpoint if `saves`.
    """

    def __init__(self, watch: Watch, saves: bool) -> None:
        self.watch = watch
        self._saves = saves
        heldout, labels = watch.prepared.heldout, watch.prepared.heldout_labels
        count = min(LIVE_ROWS, len(heldout))  # at random: files are often sorted by task
        sample = random.Random(watch.settings.seed).sample(range(len(heldout)), count)
        self._rows = [heldout[i] for i in sample]
        self._components = [labels[i] for i in sample]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        watch, every = self.watch, self.watch.settings.eval_every
        due = every and state.global_step % every == 0 and state.global_step < state.max_steps
        if not due or control.should_training_stop or not watch.processes.is_first:  # the others wait in the next step
            return
        try:
            self._evaluate()
        except StopRequestedError:
            if watch.processes.count > 1:  # the others are in the next step already
                raise
            control.should_training_stop = True
            control.should_save = self._saves

    def _evaluate(self) -> None:
        watch, paused = self.watch, time.monotonic()
        prepared = watch.prepared
        prepared.model.eval()
        pad = prepared.tokenizer.pad_token_id
        scores = evaluate(prepared.model, self._rows, pad, components=self._components)
        answers = sample_answers(prepared, watch.settings)
        prepared.model.train()
        if watch.trainer:
            watch.trainer.heldout_loss = scores.loss
        watch.reporter.scores("live", scores, answers)
        watch.paused += time.monotonic() - paused
