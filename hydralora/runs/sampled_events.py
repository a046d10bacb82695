"""A run's events as figures and tables need them: all of a usual run, of a long one a sample that keeps its extremes.

What was sampled is kept beside the events in an index, so that a long run is opened without reading all of it again.
The index holds no events, only where in the file they are: what is shown always comes from the events themselves. It is
a cache: whatever is wrong with it, or has changed since, it is ignored and made again.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hydralora.errors import RunError
from hydralora.files import UnreadableError, write_json
from hydralora.files.cache import FileStatus, checksum, status_of
from hydralora.runs.downsampling import TAIL, Downsampling, Placed
from hydralora.runs.event_columns import PIECE, Columns, Kind, Places, UnfitError, Values, extreme_places, read_columns
from hydralora.runs.events import EvalEvent, Event, GatesEvent, NoteEvent, TrainEvent, numbered_lines, parse_event

INDEX = ".events-index.json"
INDEX_EVERY = 20_000  # events after which the index is written again
LARGEST_INDEX = 16 * 2**20  # bytes
MANY, BLOCK = 2**19, 8 * 2**20  # bytes: new events beyond the one are read together, at most the other at once
END = 4096  # bytes before the place where reading goes on, by which a rewritten file is noticed
MOST_CURVES = 64  # of an event: heads, components
MOST = {"train": 4000, "gates": 2000, "live": 1000, "whole": 1000, "note": 1000}  # events, by group

Group = Literal["train", "gates", "live", "whole", "note"]
Place = Annotated[int, Field(ge=0, lt=2**62)]


class _Stored(NamedTuple):
    """An event, and its line's place in the file in bytes."""

    start: int
    size: int
    event: Event


class _KeptPoints(BaseModel):
    """What a group keeps: (the place among its events, where the line starts, its size)."""

    model_config = ConfigDict(strict=True)
    width: Annotated[int, Field(ge=1, lt=2**62)]
    count: Place
    points: Annotated[list[tuple[Place, Place, Place]], Field(max_length=16 * max(MOST.values()))]

    @model_validator(mode="after")
    def _in_order(self) -> "_KeptPoints":
        ends = [(0, 0), *((place + 1, start + size) for place, start, size in self.points)]
        starts = [*((place, start) for place, start, _ in self.points), (self.count, 2**63)]
        if any(end[0] > start[0] or end[1] > start[1] for end, start in zip(ends, starts, strict=True)):
            raise ValueError("its points are not in order")
        if bool(self.count) != bool(self.points) or (self.points and self.points[0][0]):
            raise ValueError("it lacks the first point")
        if self.points and self.points[-1][0] != self.count - 1:
            raise ValueError("it lacks the last point")
        return self


class _Index(BaseModel):
    """What was read of a file of events: its first `size` bytes, which hold `lines` lines.

    `status` is the file's at that time; a file that has changed since still begins with the same bytes if their sha256
    is the same.
    """

    model_config = ConfigDict(strict=True)
    version: Literal[1] = 1
    status: tuple[int, ...]
    size: Place
    sha256: str
    lines: Place
    groups: dict[Group, _KeptPoints]
    checksum: str = ""

    def sum(self) -> str:
        """What the checksum must be."""
        return checksum(self.model_dump(exclude={"checksum"}))


class SampledEvents:
    """The events of a run for repeated looks; each reads only what is new, or all of a file that was rewritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._groups: dict[Group, Downsampling[_Stored]] = {}
        self._size = self._lines = self._unwritten = 0
        self._inode, self._end = -1, b""
        self._alone = False  # whether each line is to be looked at alone
        self._events: list[Event] | None = None

    def look(self) -> list[Event]:
        """The events so far; the caller must not change the list.

        Raises:
            RunError: a line holds no event, or the file can't be read.
        """
        try:
            with self._path.open("rb") as file:
                self._read(file)
        except FileNotFoundError:
            self._begin()
        except OSError as error:
            raise RunError(f"{self._path.name}: can't be read ({error.strerror or error}).") from error
        if self._events is None:
            kept = [placed.point for group in self._groups.values() for placed in group.kept()]
            self._events = [stored.event for stored in sorted(kept, key=lambda stored: stored.start)]
        return self._events

    def _read(self, file: BinaryIO) -> None:
        status = status_of(os.fstat(file.fileno()))
        if status.inode != self._inode or status.size < self._size or self._end_in(file) != self._end:
            self._begin()
            self._inode = status.inode
            self._restore(file, status)
        if status.size == self._size:
            return
        self._events = None
        if status.size - self._size > MANY and not self._alone:
            try:
                self._read_together(file, status.size)
            except UnfitError:
                self._begin()
                self._inode, self._alone = status.inode, True
        file.seek(self._size)
        try:
            for number, line in numbered_lines(file, self._lines):
                self._add(parse_event(line, f"{self._path.name}, line {number}"), len(line))
                self._lines = number
        finally:  # a damaged line is the first that the next look reads
            self._end = self._end_in(file)
            if self._unwritten >= INDEX_EVERY:
                self._unwritten = 0
                with suppress(OSError):  # a workspace that is read-only, or a full disk
                    index = self._index(file, status)
                    write_json(self._path.with_name(INDEX), index.model_dump() | {"checksum": index.sum()})

    def _read_together(self, file: BinaryIO, size: int) -> None:
        """Read all of many new events but the last few.

        Raises:
            UnfitError: each must be looked at alone, from the beginning.
        """
        while size - self._size > MANY:
            file.seek(self._size)
            text = file.read(BLOCK)
            columns = read_columns(text[: text.rfind(b"\n") + 1], MOST_CURVES)
            for line in columns.others:
                if stored := self._stored(text, columns, line):
                    self._group(_group_of(stored.event)).add(stored)
            for kind, lines in columns.lines.items():
                for i in range(0, len(lines), PIECE):
                    self._add_some(text, columns, kind, lines[i : i + PIECE], columns.values[kind][i : i + PIECE])
            self._size += int(columns.starts[-1])
            self._lines += len(columns.starts) - 1
            self._unwritten += len(columns.starts) - 1

    def _add_some(self, text: bytes, columns: Columns, kind: Kind, lines: Places, values: Values) -> None:
        """Add those lines of one kind that may be kept."""
        group = self._group(kind)
        before = group.count
        chosen = {*extreme_places(values, before, group.width), *range(max(0, len(lines) - TAIL), len(lines))}
        for place in sorted(chosen):
            stored = self._stored(text, columns, int(lines[place]))
            if stored is None or _group_of(stored.event) != kind:
                raise UnfitError
            group.add_at(before + place, stored)

    def _stored(self, text: bytes, columns: Columns, line: int) -> _Stored | None:
        """An event of a block that begins where reading goes on; None of a kind that only a newer program knows."""
        start, end = columns.starts[line : line + 2].tolist()
        try:
            event = parse_event(text[start:end], "")
        except RunError as error:
            raise UnfitError from error
        return _Stored(self._size + start, end - start, event) if event else None

    def _add(self, event: Event | None, size: int) -> None:
        if event:
            self._group(_group_of(event)).add(_Stored(self._size, size, event))
            self._unwritten += 1
        self._size += size

    def _group(self, name: Group) -> Downsampling[_Stored]:
        if name not in self._groups:
            self._groups[name] = _sample(name)
        return self._groups[name]

    def _end_in(self, file: BinaryIO) -> bytes:
        begin = max(0, self._size - END)
        file.seek(begin)
        return file.read(self._size - begin)

    def _index(self, file: BinaryIO, status: FileStatus) -> _Index:
        groups = {}
        for name, group in self._groups.items():
            points = [(placed.place, placed.point.start, placed.point.size) for placed in group.kept()]
            groups[name] = _KeptPoints.model_construct(width=group.width, count=group.count, points=points)
        begin = _hash_of_begin(file, self._size)
        return _Index(status=_lasting(status), size=self._size, sha256=begin, lines=self._lines, groups=groups)

    def _restore(self, file: BinaryIO, status: FileStatus) -> None:
        """Begin with what the index says, if it is about this file as it is now."""
        try:
            index = _Index.model_validate_json(_index_text(self._path.with_name(INDEX)))
            if status.size < index.size or index.checksum != index.sum():
                return
            unchanged = index.status == tuple(status)
            if not unchanged and index.sha256 != _hash_of_begin(file, index.size):
                return
            groups = {name: _restored(file, name, kept, index.size) for name, kept in index.groups.items()}
        except (ValidationError, UnreadableError, RunError, OSError):
            return
        self._groups, self._size, self._lines = groups, index.size, index.lines
        self._end = self._end_in(file)


def _index_text(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_INDEX)  # a larger one is cut, and so no JSON


def _sample(group: Group) -> Downsampling[_Stored]:
    return Downsampling(lambda stored: _curves(stored.event), MOST[group])


def _restored(file: BinaryIO, group: Group, kept: _KeptPoints, size: int) -> Downsampling[_Stored]:
    """
    Raises:
        UnreadableError: its points are not lines that hold such events.
    """
    points = []
    for place, start, length in kept.points:
        file.seek(max(0, start - 1))
        before, line = (file.read(1) if start else b"\n"), file.read(length)
        whole = before == b"\n" and line.find(b"\n") == length - 1 and start + length <= size
        event = parse_event(line, "") if whole else None
        if event is None or _group_of(event) != group:
            raise UnreadableError("it names a place that holds no such event")
        points.append(Placed(place, _Stored(start, length, event)))
    sample = _sample(group)
    sample.restore(kept.width, kept.count, points)
    return sample


def _lasting(status: FileStatus) -> tuple[int, ...]:
    """A status by which another change would show, else nothing, and the content itself is compared."""
    return tuple(status) if status.is_settled else ()


def _hash_of_begin(file: BinaryIO, size: int) -> str:
    """sha256 of a file's first bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (chunk := file.read(min(size, 2**20))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _group_of(event: Event) -> Group:
    if isinstance(event, TrainEvent):
        return "train"
    if isinstance(event, GatesEvent):
        return "gates"
    if isinstance(event, EvalEvent):
        return "live" if event.split == "live" else "whole"
    return "note"


def _curves(event: Event) -> dict[str, float | None]:
    """An event's value on each curve that is drawn of its kind."""
    if isinstance(event, TrainEvent):
        return {
            "loss": event.loss,
            "learning_rate": event.learning_rate,
            "gradient_norm": event.gradient_norm,
            "tokens_per_second": event.tokens_per_second,
        }
    if isinstance(event, GatesEvent):
        heads = event.mean_gate[:MOST_CURVES]
        return {"entropy": event.entropy} | {str(head): gate for head, gate in enumerate(heads)}
    if isinstance(event, EvalEvent):
        components = list(event.per_component.items())[:MOST_CURVES]
        return {"loss": event.loss} | {f"component {name}": score.loss for name, score in components}
    return {"rows": float(bool(event.rows))} if isinstance(event, NoteEvent) else {}
