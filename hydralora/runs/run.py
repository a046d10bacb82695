"""One run's folder: the only code that knows its layout."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from hydralora.errors import RunError
from hydralora.files import (
    UnreadableError,
    patiently,
    read_json,
    weight_files,
    write_json,
    write_text,
)
from hydralora.files.cache import ParsedFiles
from hydralora.recipe.reading import load_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.checkpoints import saved_checkpoints
from hydralora.runs.events import (
    EvalEvent,
    Event,
    EventTail,
    append_event,
    keep_events,
    read_events,
    write_events,
)
from hydralora.runs.sampled_events import SampledEvents
from hydralora.runs.scores import Scores
from hydralora.runs.state import VERSION, RunState, parse_state

LEAVING = 5.0  # seconds for which an ended worker may still hold its lock
SHIPPED_ID = "20000101-000000-0000"  # of the run that ships with the program; the oldest, so it is listed last
RECIPE, STATE = "recipe.yaml", "state.json"
MEASURE = "measure"  # the content of the file `stop` if an evaluation is requested


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def row_scores(self) -> Path:
        """Scores of each held-out row (`hydralora.runs.scores.RowScores`)."""
        return self.folder / "row_scores"

    @property
    def answers(self) -> Path:
        """Saved answers (`hydralora.inference.traces`), which only the shipped run has."""
        return self.folder / "answers"

    @property
    def is_shipped(self) -> bool:
        """Whether it ships with the program (`hydralora.runs.shipped`); such a run is read-only."""
        return self.id == SHIPPED_ID

    def refuse_if_shipped(self, change: str) -> None:
        """
        Args:
            change: a participle, such as "deleted".

        Raises:
            RunError: it ships with the program.
        """
        if self.is_shipped:
            raise RunError(
                f"This run ships with the program, so it can't be {change}. Copy its settings, or continue training "
                "from it, to have a run of your own."
            )

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint with its step; None where there is none."""
        return next(reversed(saved_checkpoints(self.checkpoints).items()), None)

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    def log_lines(self, most: int) -> list[str]:
        """The lines in the last `most` bytes of the log; none if there is no log yet."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - most))
                return file.read().decode("utf-8", errors="replace").splitlines()[size > most :]
        except FileNotFoundError:
            return []

    @property
    def has_adapter(self) -> bool:
        """Whether it has saved what it trained: an adapter, or a whole model."""
        return bool(weight_files(self.adapter))

    def recipe(self) -> Recipe:
        return load_recipe(self.folder / RECIPE)

    def state(self) -> RunState:
        """The run's state from its state.json.

        Raises:
            RunError: the file is missing or damaged.
        """
        return _STATES.get(self._state_file)

    @property
    def _state_file(self) -> Path:
        return self.folder / STATE

    def update(self, **changes: object) -> RunState:
        """Write changes of `RunState`'s fields atomically, with a new heartbeat."""
        if unknown := sorted(set(changes) - set(RunState.model_fields)):
            raise TypeError(f"A run's state has no {unknown[0]}.")
        with FileLock(self.folder / ".state.lock"):  # concurrent changes by two processes are both kept
            # Read now: on shared storage, a file's status may be told a few seconds late.
            state = _read_state(self._state_file).changed(**changes, heartbeat=time.time())
            self.write_state(state)
        return state

    def write_state(self, state: RunState) -> None:
        """Write a whole state."""
        write_json(self._state_file, state.values())

    def begin(self, recipe: Recipe, **state: object) -> None:
        """Write the recipe and the first state: queued, unless `state` says otherwise."""
        write_text(self.folder / RECIPE, recipe.to_yaml())
        first = RunState(
            version=VERSION,
            id=self.id,
            state="queued",
            step=0,
            max_steps=recipe.training.max_steps,
            pid=None,
            started=time.time(),
            heartbeat=time.time(),
            message="",
            base=None,
            adapter_hash=None,
        )
        self.write_state(first.changed(**state))

    def write_events(self, events: Iterable[Event]) -> None:
        """Write all events again."""
        write_events(self.events_file, events)

    def add_event(self, event: Event) -> None:
        append_event(self.events_file, event)

    def events(self) -> list[Event]:
        """All events so far; a last line that is still being written is left out.

        Raises:
            RunError: a line holds no event.
        """
        return list(self.each_event())

    def each_event(self) -> Iterator[Event]:
        """The same one by one, since a long run has millions."""
        return read_events(self.events_file)

    def sampled_events(self) -> SampledEvents:
        """A reader of the events for figures, for repeated polling; of a long run it gives a sample."""
        return SampledEvents(self.events_file)

    def follow_events(self, passed: int = 0) -> EventTail:
        """A reader of all events after the first `passed`, for repeated polling."""
        return EventTail(self.events_file, passed)

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    def before(self) -> Scores | None:
        """The base model's scores on the held-out rows; None if they were not measured yet."""
        evaluations = (event for event in read_events(self.events_file) if isinstance(event, EvalEvent))
        return next((event.scores for event in evaluations if event.split == "before"), None)

    def rewind(self) -> int:
        """Discard events after the newest checkpoint, from which training resumes; returns its step, 0 without one."""
        newest = self.newest_checkpoint()
        step = newest[0] if newest else 0
        keep_events(
            self.events_file,
            lambda event: event.step <= step and not (isinstance(event, EvalEvent) and event.split == "after"),
        )
        (self.folder / "stop").unlink(missing_ok=True)
        return step

    @property
    def name(self) -> str:
        """Its name for people; its id if it has none."""
        return self.label().name or self.id

    def label(self) -> "Label":
        """The user's label of the run; an empty one if there is none."""
        return _LABELS.get(self.folder / "label.json")

    def write_label(self, label: "Label") -> None:
        """Write the user's label.

        Raises:
            RunError: the run ships with the program.
        """
        self.refuse_if_shipped("renamed")
        write_json(self.folder / "label.json", asdict(label))

    def request_stop(self, measure: bool = False) -> None:
        """Request the worker to stop after its step; with `measure` also to evaluate the adapter."""
        (self.folder / "stop").write_text(MEASURE if measure else "", encoding="utf-8")

    @property
    def stop_requested(self) -> bool:
        return (self.folder / "stop").exists()

    @property
    def measure_requested(self) -> bool:
        """Whether a stop with an evaluation was requested."""
        try:
            return (self.folder / "stop").read_text(encoding="utf-8") == MEASURE
        except FileNotFoundError:
            return False

    @property
    def is_worked_on(self) -> bool:
        """Whether a process of this machine holds the worker's lock; unlike times, no clock that is set changes it."""
        try:
            with self.worker_lock().acquire(timeout=0.5, poll_interval=0.01):  # others may look at the same time
                return False
        except Timeout:
            return True
        except OSError:  # a workspace that is read-only
            return False

    def worker_lock(self) -> FileLock:
        """The lock that the run's worker holds, so that there is only one."""
        return FileLock(self.folder / ".worker.lock", timeout=LEAVING)


@dataclass(frozen=True)
class Label:
    """The user's name, note and tags of a run."""

    name: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()
    version: int = VERSION


_LABEL = TypeAdapter(Label)


def _read_state(path: Path) -> RunState:
    run_id = path.parent.name
    try:
        values = patiently(lambda: read_json(path))
    except UnreadableError as error:
        raise RunError(f"Run {run_id}: {path} can't be read ({error}). Delete the folder.") from error
    return parse_state(values, f"Run {run_id}: {path}")


def _read_label(path: Path) -> Label:
    try:
        return _LABEL.validate_python(read_json(path))
    except (UnreadableError, ValidationError):
        return Label()


_STATES, _LABELS = ParsedFiles(_read_state), ParsedFiles(_read_label)
