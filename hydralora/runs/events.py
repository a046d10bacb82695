"""A run's events, and the only code that reads and writes them."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Literal, get_args

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from hydralora.errors import RunError
from hydralora.files import to_json, write_texts
from hydralora.models.fetching import BaseModelInfo
from hydralora.recipe.reading import validation_message
from hydralora.runs.records import FROM_ELSEWHERE, Name, Record, Share
from hydralora.runs.results import DataSource, RowCounts, TemplateCheck
from hydralora.runs.scores import SampleAnswer, Score, Scores
from hydralora.runs.state import KnownStage


class BaseEvent(Record):
    """Base of all events: the optimiser step and the time (seconds since 1970)."""

    stored: ClassVar[bool] = True  # whether it is stored in the run's folder
    step: int
    time: float

    def values(self) -> dict[str, JsonValue]:
        """As plain values; the kind is always among them."""
        kind: JsonValue = type(self).model_fields["kind"].default
        return {"step": self.step, "time": self.time, "kind": kind} | super().values()

    def line(self) -> str:
        """A line for display; "" if there is nothing to display."""
        return ""


class Usage(Record):
    """Resources that a run's process uses (100 percent is one core), and free ones of its machine and GPU."""

    cpu_percent: float
    memory_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    gpu_memory_bytes: int | None = None
    gpu_free_bytes: int | None = None


class TrainEvent(BaseEvent):
    """The steps since the last train event: loss on the answers, gradient norm before clipping, speed."""

    kind: Literal["train"] = "train"
    loss: float | None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    balance_loss: float | None = None
    usage: Usage | None = None

    def figures(self) -> tuple[str, str]:
        """Loss and speed, for display."""
        return f"loss {_number(self.loss)}", f"{self.tokens_per_second or 0:.0f} tokens/s"

    def line(self) -> str:
        return "  ".join((f"step {self.step:5}", *self.figures()))


class EvalEvent(BaseEvent):
    """Scores on held-out rows: all of them "before" and "after", a sample "live"; answers to a few prompts."""

    kind: Literal["eval"] = "eval"
    split: Name
    loss: float | None
    exact_match: Share
    rows: int
    per_task: dict[Name, Score] = Field(default_factory=dict)
    per_component: dict[Name, Score] = Field(default_factory=dict)
    answers: list[SampleAnswer] = Field(default_factory=list)

    @property
    def scores(self) -> Scores:
        return Scores.model_validate(self.model_dump(include=set(Scores.model_fields)))

    def line(self) -> str:
        return f"held out ({self.split}): loss {_number(self.loss)}, exact match {self.exact_match:.1%}"


class GatesEvent(BaseEvent):
    """Mean gate of each head, and the gates' entropy as a share of its maximum."""

    kind: Literal["gates"] = "gates"
    mean_gate: list[Share]
    entropy: float | None

    def line(self) -> str:
        return (
            f"            gates {' '.join(f'{gate:.2f}' for gate in self.mean_gate)}  entropy {self.entropy or 0:.2f}"
        )


class NoteEvent(BaseEvent):
    """The start of a stage, or new information: total steps, rows, components, base model, data."""

    kind: Literal["note"] = "note"
    message: Name | None = None
    stage: KnownStage = None
    max_steps: int | None = None
    rows: RowCounts | None = None
    k: int | None = None
    sizes: list[int] | None = None
    base: BaseModelInfo | None = None
    data: list[DataSource] | None = None
    template_checks: list[TemplateCheck] | None = None
    without_effect: list[Name] | None = None  # settings
    lost: Name | None = None  # what a resumed run could not continue from, and why

    def line(self) -> str:
        return f"{self.stage.value} ..." if self.stage else "\n".join([self.message or "", *self.warnings()]).strip()

    def warnings(self) -> list[str]:
        """What the user should know before training: of rows, of settings, of the chat template."""
        rows = f"rows {self.rows.sentence()}" if self.rows and self.rows.sentence() else ""
        problems = [check.sentence() for check in self.template_checks or () if check.state == "problem"]
        idle = f"settings without effect: {', '.join(self.without_effect)}" if self.without_effect else ""
        return [line for line in (self.lost or "", rows, idle, *problems) if line]


class StepEvent(BaseEvent):
    """The step alone, once a second."""

    stored: ClassVar[bool] = False
    kind: Literal["step"] = "step"


class ProgressEvent(BaseEvent):
    """Rows of a stage that are done, and all of its rows."""

    stored: ClassVar[bool] = False
    kind: Literal["progress"] = "progress"
    done: int
    total: int


Event = TrainEvent | EvalEvent | GatesEvent | NoteEvent | StepEvent | ProgressEvent
OnEvent = Callable[[Event], None]
KINDS = {kind.model_fields["kind"].default for kind in get_args(Event)}
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def parse_event(line: str | bytes, where: str, from_elsewhere: bool = False) -> Event | None:
    """An event from a line of JSON; None for an empty line, and for a kind that only a newer program knows.

    Args:
        from_elsewhere: whether it may come from another machine.

    Raises:
        RunError: it is not an event; `where` starts the message.
    """
    try:
        return _EVENT.validate_json(line, context=FROM_ELSEWHERE if from_elsewhere else None)
    except ValidationError as error:
        (first, *_) = error.errors()
        if first["type"] == "union_tag_invalid" or not line.strip():
            return None
        if first["type"] == "union_tag_not_found":
            raise RunError(f"{where}: an event has no kind.") from error
        raise RunError(f"{where}: {validation_message(error)[:300]}.") from error


def read_events(path: Path, from_elsewhere: bool = False) -> Iterator[Event]:
    """The events of a file so far, none where there is no file; a last line that is still being written is left out.

    Args:
        from_elsewhere: whether it may come from another machine.

    Raises:
        RunError: a line holds no event, or the file can't be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path.name}: can't be read ({error.strerror or error}).") from error
    with file:
        for number, line in numbered_lines(file):
            if event := parse_event(line, f"{path.name}, line {number}", from_elsewhere):
                yield event


def numbered_lines(file: BinaryIO, before: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of events from its current place, each with its number; not one that is still being written.

    Args:
        before: the number of lines before that place.
    """
    for number, line in enumerate(file, before + 1):
        if line.endswith(b"\n"):
            yield number, line


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Write all events again; they may come from the file itself."""
    write_texts(path, (to_json(event.values()) + "\n" for event in events))


def keep_events(path: Path, wanted: Callable[[Event], bool]) -> None:
    """Discard the other events of a file, and kinds that only a newer program knows; lines that stay are not changed.

    Raises:
        RunError: a line holds no event; the file stays as it is.
    """

    def lines() -> Iterator[str]:
        with path.open("rb") as file:
            for number, line in numbered_lines(file):
                event = parse_event(line, f"{path.name}, line {number}")
                if event and wanted(event):
                    yield line.decode().rstrip("\r\n") + "\n"

    write_texts(path, lines() if path.exists() else ())


def append_event(path: Path, event: Event) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(to_json(event.values()) + "\n")


class EventTail:
    """A reader of a run's events in order, for repeated looks."""

    def __init__(self, path: Path, passed: int = 0) -> None:
        """
        Args:
            passed: events at the beginning that are not wanted.
        """
        self._path, self._passed = path, passed
        self._inode, self._size = -1, 0
        self._lines = self._read = 0

    def look(self) -> Iterator[Event]:
        """The events since the last look; of a file that was rewritten, those after as many as have been passed on.

        Raises:
            RunError: a line holds no event.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._size:
                self._inode, self._size, self._lines, self._read = status.st_ino, 0, 0, 0
            file.seek(self._size)
            for number, line in numbered_lines(file, self._lines):
                event = parse_event(line, f"{self._path.name}, line {number}")
                self._lines, self._size = number, self._size + len(line)
                self._read += event is not None
                if event and self._read > self._passed:
                    self._passed = self._read
                    yield event


def training_losses(events: Iterable[Event]) -> list[tuple[int, float]]:
    """(step, training loss) of the events that have one."""
    return [(event.step, event.loss) for event in events if isinstance(event, TrainEvent) and event.loss is not None]


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"
