"""A run's state: the record in its state.json."""

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from hydralora.errors import RunError
from hydralora.models.fetching import BaseModelInfo
from hydralora.recipe.reading import validation_message
from hydralora.runs.records import Count, Moment, Name, Record, Share
from hydralora.runs.results import DataSource, RowCounts, RunResults

VERSION = 1
UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()  # of a state, from version 1 to 2, 2 to 3, ...

StateName = Literal[
    "queued", "preparing", "training", "evaluating", "stopping", "finished", "stopped", "interrupted", "failed"
]
STATES: tuple[StateName, ...] = get_args(StateName)
ACTIVE: tuple[StateName, ...] = ("queued", "preparing", "training", "evaluating", "stopping")
RESUMABLE: tuple[StateName, ...] = ("stopped", "interrupted", "failed")


class Stage(str, Enum):
    """The stages of a run, with their display texts."""

    READING = "reading the data"
    CLUSTERING = "clustering"
    LOADING = "loading the base model"
    ADAPTING = "adding the adapter"
    STARTING_ROUTER = "starting the router from the components"
    EVALUATING_BASE = "evaluating the base model"
    EVALUATING_BASE_TASKS = "evaluating the base model on benchmarks"
    TRAINING = "training"
    MIXING = "mixing the components' LoRAs"
    EVALUATING_TUNED = "evaluating the tuned model"
    EVALUATING_TUNED_TASKS = "evaluating the tuned model on benchmarks"
    MEASURING_HEADS = "measuring the heads"

    @property
    def state(self) -> StateName:
        """The state of a run in this stage."""
        if self in EVALUATING:
            return "evaluating"
        return "training" if self is Stage.TRAINING else "preparing"


EVALUATING = (
    Stage.EVALUATING_BASE,
    Stage.EVALUATING_BASE_TASKS,
    Stage.MIXING,
    Stage.EVALUATING_TUNED,
    Stage.EVALUATING_TUNED_TASKS,
    Stage.MEASURING_HEADS,
)
ProcessId = Annotated[int, Field(gt=0, lt=2**31)]


def _of_this_version(stage: object) -> object:
    return stage if stage in list(Stage) else None  # a list: values in a damaged file may be unhashable


KnownStage = Annotated[
    Stage | None, BeforeValidator(_of_this_version)
]  # None for a stage that only a newer version has


class Spent(Record):
    """Time and energy of a run's processes, except killed ones: seconds by stage and in total, kWh by part."""

    seconds: dict[Name, float] = Field(default_factory=dict)
    total_seconds: float = 0.0
    energy_kwh: dict[Name, float] | None = None


class TrialEstimate(Record):
    """The estimated cost of a run, from a trial of a few of its steps."""

    seconds: float
    memory_bytes: int
    disk_bytes: int
    steps: int
    step_seconds: float


class StageClock(Record):
    """The times of a stage: when it began, when its newest progress was reported, and how much was done at its begin.

    Times are seconds since 1970; `first` is a step, since a resumed training doesn't begin at 0.
    """

    began: Moment
    reported: Moment
    first: Count = 0


class RunState(Record):
    """A run's state; fields that a newer program of the same version added are kept.

    Attributes:
        message: text for display; `stage` the same for programs.
        pid, host: of its process, or of the launcher of its processes; `job` the id of a cluster's job.
        started, heartbeat, ended: seconds since 1970.
        progress: what is done of the stage, and all of it, in its phase's unit (`hydralora.runs.phases`).
        clock: the times of the stage.
        fraction: the largest part of the whole run that was reported as done, 0 to 1.
        base, data, k: the base model, the data and the number of components, as soon as they are known.
        rows_read, rows: the usable rows of the file, and what they were split into.
        base_measured: whether the base model's scores are known from before the run was resumed.
    """

    model_config = ConfigDict(extra="allow")

    version: int = VERSION
    id: str
    state: StateName
    step: Count
    max_steps: Count | None
    pid: ProcessId | None
    started: Moment
    heartbeat: Moment
    message: str
    stage: KnownStage = None
    host: str | None = None
    job: str | None = None
    base: BaseModelInfo | None = None
    adapter_hash: str | None = None
    progress: tuple[Count, Count] | None = None
    clock: StageClock | None = None
    fraction: Share | None = None
    data: list[DataSource] | None = None
    k: Count | None = None
    rows_read: Count | None = None
    rows: RowCounts | None = None
    base_measured: bool = False
    results: RunResults | None = None
    spent: Spent | None = None
    estimate: TrialEstimate | None = None
    ended: Moment | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is running or waiting."""
        return self.state in ACTIVE

    def line(self) -> str:
        """As a line of a list."""
        return f"{self.id}  {self.state:12} step {self.step} of {self.max_steps}  {self.message}"


def parse_state(values: object, where: str) -> RunState:
    """A state from plain values; one of an older version is upgraded.

    Raises:
        RunError: it holds no run's state, or one of a newer version; `where` opens the sentence.
    """
    if not isinstance(values, dict):
        raise RunError(f"{where} holds no run's state. Delete the folder.")
    version = values.get("version", 1)
    if isinstance(version, int) and version > VERSION:
        raise RunError(f"{where} was made by a newer hydralora (its version is {version}). Update this one.")
    try:
        for upgrade in UPGRADES[version - 1 :]:
            values = upgrade(values)
        return RunState.model_validate(values | {"version": VERSION})
    except (ValidationError, TypeError, ValueError, KeyError) as error:
        why = validation_message(error) if isinstance(error, ValidationError) else str(error)
        raise RunError(f"{where} holds no run's state ({why[:200]}). Delete the folder.") from error
