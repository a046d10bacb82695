"""The phases of a run, in the order in which a person sees them, and how far a run has come."""

import math
import time
from dataclasses import asdict, dataclass

from hydralora.data.progress import describe_duration
from hydralora.recipe.settings import Recipe
from hydralora.runs.state import RunState, Stage
from hydralora.tuner.component_rows import ROWS_PER_COMPONENT
from hydralora.tuner.mixtures import BUDGET, ROWS
from hydralora.tuner.router_init import PASSES

# The work of a phase in rows: one row is a forward pass of the base model over a row of the data. The constants are
# the seconds of a demo run on two CPU cores, divided by the .15 s that such a row takes there.
STARTING, READING, CLUSTERING, LOADING = 60.0, 5.0, 30.0, 20.0
ANSWERING = 20.0  # a few sample answers
TRAINED = 2.15  # forward and backward
UNKNOWN_ROWS, UNKNOWN_HEADS = 800, 4  # until the data is read and clustered


@dataclass(frozen=True)
class Phase:
    """A part of a run: its name, the stages it consists of, the unit of its progress, and its work in rows.

    Without a stage it lasts until the first one.
    """

    name: str
    stages: tuple[Stage, ...]
    unit: str
    work: float


@dataclass(frozen=True)
class RunProgress:
    """How far a run has come.

    Attributes:
        number, count: this phase, from 1, and how many there are.
        name, unit: of the phase: "evaluating the base model", "rows".
        done, total: of the phase, in its unit; None until its total is known.
        seconds_left: of the phase, by its speed so far; None until something is done.
        fraction: of the whole run, 0 to 1, by the phases' usual work; while the run works it never falls.
    """

    number: int
    count: int
    name: str
    unit: str
    done: int | None
    total: int | None
    seconds_left: float | None
    fraction: float

    def values(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)

    @property
    def place(self) -> str:
        """The phase's number and name: "phase 3 of 8, clustering"."""
        return f"phase {self.number} of {self.count}, {self.name}"

    @property
    def share(self) -> str:
        """What of the phase is done: "40 of 80 rows"; "" if its total is not known."""
        if self.done is None or self.total is None:
            return ""
        return f"{self.done:,} of {self.total:,} {self.unit if self.total != 1 else self.unit.removesuffix('s')}"

    @property
    def left(self) -> str:
        """The phase's remaining time: "about 2 min left"; "" if it is not known."""
        return "" if self.seconds_left is None else f"about {describe_duration(self.seconds_left)} left"

    def sentence(self) -> str:
        """For display: "Phase 3 of 8, evaluating the base model: 40 of 80 rows, about 2 min left"."""
        details = ", ".join(text for text in (self.share, self.left) if text)
        return f"P{self.place[1:]}" + (f": {details}" if details else "")


def planned_phases(recipe: Recipe, state: RunState | None = None) -> tuple[Phase, ...]:
    """The phases of a run by its recipe, and by what its state knows of rows and components already.

    A resumed run whose base model was measured before has no such phase.
    """
    heldout, train = _rows(recipe, state)
    whole = heldout + ANSWERING
    phases = [
        Phase("starting", (), "steps", STARTING),
        Phase("reading the data", (Stage.READING,), "rows", READING),
        Phase("clustering", (Stage.CLUSTERING,), "steps", CLUSTERING),
        Phase("loading the base model", (Stage.LOADING, Stage.ADAPTING), "models", LOADING),
    ]
    if recipe.starts_from_components:
        heads = recipe.tuner.num_heads or (state and state.k) or UNKNOWN_HEADS
        work = float(PASSES * min(ROWS_PER_COMPONENT * heads, train))
        phases.append(Phase("starting the router", (Stage.STARTING_ROUTER,), "passes", work))
    if not (state and state.base_measured):
        phases.append(Phase("evaluating the base model", (Stage.EVALUATING_BASE,), "answers", whole))
    tasks = recipe.training.benchmarks or ()
    answered = float(len(tasks) * recipe.training.benchmark_rows)
    if tasks:
        phases.append(Phase("benchmarks before", (Stage.EVALUATING_BASE_TASKS,), "benchmarks", answered))
    phases.append(Phase("training", (Stage.TRAINING,), "steps", _training_work(recipe, state, train)))
    if recipe.method == "lorahub":
        tried = float(BUDGET * min(ROWS * (recipe.tuner.num_heads or (state and state.k) or UNKNOWN_HEADS), train))
        phases.append(Phase("mixing", (Stage.MIXING,), "mixtures", tried))
    phases.append(Phase("evaluating the tuned model", (Stage.EVALUATING_TUNED,), "answers", whole))
    if tasks:
        phases.append(Phase("benchmarks after", (Stage.EVALUATING_TUNED_TASKS,), "benchmarks", answered))
    if recipe.has_heads:
        phases.append(Phase("measuring the heads", (Stage.MEASURING_HEADS,), "rows", heldout))
    return tuple(phases)


def run_progress(state: RunState, recipe: Recipe, now: float | None = None) -> RunProgress:
    """How far a run has come.

    Args:
        now: seconds since 1970; the present by default.
    """
    phases = planned_phases(recipe, state)
    last = len(phases)
    if state.state == "finished":
        return RunProgress(last, last, phases[-1].name, phases[-1].unit, None, None, None, 1.0)
    place = next((i for i, phase in enumerate(phases) if state.stage in phase.stages), 0)
    phase = phases[place]
    done, total = _counts(state, phase)
    share = done / total if done is not None and total else 0.0
    works = [each.work for each in phases]
    fraction = (sum(works[:place]) + min(share, 1.0) * works[place]) / sum(works)
    left = _seconds_left(state, done, total, time.time() if now is None else now)
    return RunProgress(
        place + 1, last, phase.name, phase.unit, done, total, left, min(1.0, max(fraction, state.fraction or 0.0))
    )


def _rows(recipe: Recipe, state: RunState | None) -> tuple[int, int]:
    """Held-out and training rows: as counted, else by the rows that were read, else a guess."""
    if state and state.rows:
        return state.rows.heldout, state.rows.train
    read = (state and state.rows_read) or UNKNOWN_ROWS
    heldout = max(1, round(recipe.data.eval_fraction * read))
    return heldout, max(1, read if recipe.data.eval else read - heldout)


def _training_work(recipe: Recipe, state: RunState | None, train: int) -> float:
    settings = recipe.training
    per_step = settings.batch_size * settings.gradient_accumulation * recipe.launch.all_processes
    planned = settings.max_steps or math.ceil((settings.epochs or 1) * math.ceil(train / per_step))
    steps = (state and state.max_steps) or planned
    return TRAINED * per_step * steps


def _counts(state: RunState, phase: Phase) -> tuple[int | None, int | None]:
    if Stage.TRAINING in phase.stages:
        return (state.step, state.max_steps) if state.max_steps else (None, None)
    return state.progress if state.progress and phase.stages else (None, None)


def _seconds_left(state: RunState, done: int | None, total: int | None, now: float) -> float | None:
    """The remaining time of the stage at its speed so far, as seen from `now`."""
    clock = state.clock
    if clock is None or done is None or total is None or done <= clock.first or clock.reported <= clock.began:
        return None
    per_unit = (clock.reported - clock.began) / (done - clock.first)
    return max(0.0, per_unit * (total - done) - max(0.0, now - clock.reported))
