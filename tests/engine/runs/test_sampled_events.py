"""A run's events as figures see them: a sample that an index beside them never changes."""

import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydralora import RunError, figures
from hydralora.runs import sampled_events
from hydralora.runs.events import (
    EvalEvent,
    Event,
    GatesEvent,
    NoteEvent,
    TrainEvent,
    keep_events,
    parse_event,
    write_events,
)
from hydralora.runs.run import Run
from hydralora.runs.sampled_events import INDEX, SampledEvents
from hydralora.training.recording import Recorder

FEW = 7  # events after which the index is written, in these tests
HOSTILE: tuple[Any, ...] = (None, "", "x", -1, 0, 1, 10**30, 1.5, True, [], {}, [[0, 0, 5]], [[0, 0, 2**61]])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events count as many."""
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sampled_events, "INDEX_EVERY", FEW)
    patch.setattr(sampled_events, "MOST", {"train": 20, "gates": 20, "live": 10, "whole": 10, "note": 10})


def event(place: int, loss: float | None = None) -> Event:
    draw = random.Random(place)
    moment = float(place)
    if place % 7 == 0:
        return NoteEvent(step=place, time=moment, message=f"note {place}")
    if place % 5 == 0:
        split = draw.choice(["before", "live", "live", "after"])
        return EvalEvent(step=place, time=moment, split=split, loss=draw.random(), exact_match=0.5, rows=4)
    if place % 2:
        return GatesEvent(step=place, time=moment, mean_gate=[draw.random(), draw.random()], entropy=None)
    return TrainEvent(step=place, time=moment, loss=draw.choice([None, draw.random()]) if loss is None else loss)


def add(path: Path, events: list[Event]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(each.values()) + "\n" for each in events)


def read_alone(path: Path) -> list[Event]:
    """What a reader without any index makes of a copy of the file."""
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copyfile(path, Path(folder) / path.name)) if path.exists() else Path(folder) / path.name
        return SampledEvents(copy).look()


def indexed(folder: Path, count: int = 300) -> Path:
    """Events that were read once, with their index."""
    path = folder / "events.jsonl"
    add(path, [event(i) for i in range(count)])
    SampledEvents(path).look()
    assert (folder / INDEX).exists()
    return path


def append(path: Path, number: int) -> None:
    before = path.stat().st_size if path.exists() else 0
    add(path, [event(before + i) for i in range(number)])


def append_half(path: Path, number: int) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event(number).values())[: 10 + number])


def complete(path: Path, number: int) -> None:
    """Whatever line is half written is replaced by a whole one."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    append(path, 1)


def rewind(path: Path, number: int) -> None:
    keep_events(path, lambda each: each.step <= number * 20)


def rewrite(path: Path, number: int) -> None:
    write_events(path, [event(i + number) for i in range(number)])


def change_in_place(path: Path, number: int) -> None:
    """Other digits, the same size."""
    if path.exists():
        content = path.read_bytes()
        with path.open("r+b") as file:
            file.write(content.replace(b'"loss": 0.%d' % (number % 10), b'"loss": 0.%d' % ((number + 3) % 10)))


def remove(path: Path, number: int) -> None:
    path.unlink(missing_ok=True)


CHANGES = (append, append, append, append_half, complete, rewind, rewrite, change_in_place, remove)


@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(1, 60)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_whatever_happens_to_the_file_the_index_changes_nothing(
    changes: list[tuple[Callable[[Path, int], None], int]],
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        path = Path(folder) / "events.jsonl"
        following = SampledEvents(path)
        for change, number in changes:
            if path.exists() and not path.read_bytes().endswith(b"\n"):
                complete(path, number)
            change(path, number)
            alone = read_alone(path)
            assert SampledEvents(path).look() == alone
            assert following.look() == alone or change is change_in_place
            if change is change_in_place:  # which nothing of ours does while somebody follows
                following = SampledEvents(path)


@pytest.mark.usefixtures("small")
def test_a_usual_run_is_whole_and_a_long_one_keeps_its_spikes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    add(path, [event(i) for i in range(20)])
    assert SampledEvents(path).look() == [event(i) for i in range(20)]
    spike = event(704, loss=99.0)
    add(path, [*(event(i) for i in range(20, 704)), spike, *(event(i) for i in range(705, 2000))])
    found = SampledEvents(path).look()
    assert len(found) < 200
    assert spike in found
    assert found[0] == event(0)
    assert found[-1] == event(1999)
    assert [each.time for each in found] == sorted(each.time for each in found)


def test_a_spike_of_one_step_in_many_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    losses = [1.0] * 30_000
    losses[12_345] = 50.0
    rates = {"learning_rate": 1.0, "gradient_norm": 1.0, "tokens_per_second": 1.0}
    events = [TrainEvent(step=i, time=i, loss=loss, **rates) for i, loss in enumerate(losses)]
    events[777] = events[777].changed(gradient_norm=70.0)
    add(path, list(events))
    read = SampledEvents(path).look()
    training, *_ = json.loads(figures.loss(read))["data"]
    assert (12_345, 50.0) in zip(training["x"], training["y"], strict=True)
    assert [training["x"][0], training["x"][-1]] == [0, 29_999]
    _, norm, _ = json.loads(figures.training_curves(read))["data"]
    assert (777, 70.0) in zip(norm["x"], norm["y"], strict=True)


def texts(index: str) -> Iterator[str]:
    """Indexes in which something is wrong."""
    yield from (
        "",
        "{",
        "[" * 50_000,
        "null",
        "[]",
        "\0",
        "9" * 5000,
        index[:-3],
        index[: len(index) // 2],
        index + "x",
    )
    values = json.loads(index)
    yield from (json.dumps(values | {key: value}) for key in values for value in HOSTILE)
    yield from (json.dumps({other: values[other] for other in values if other != key}) for key in values)
    for name, group in values["groups"].items():
        yield json.dumps(values | {"groups": {k: v for k, v in values["groups"].items() if k != name}})
        for key in group:
            for value in HOSTILE:
                yield json.dumps(values | {"groups": values["groups"] | {name: group | {key: value}}})
    yield json.dumps(values | {"version": 2})


@pytest.mark.usefixtures("small")
def test_an_index_in_which_anything_is_wrong_is_ignored(tmp_path: Path) -> None:
    path = indexed(tmp_path)
    wanted, index = read_alone(path), (tmp_path / INDEX).read_text(encoding="utf-8")
    for text in texts(index):
        (tmp_path / INDEX).write_text(text, encoding="utf-8")
        assert SampledEvents(path).look() == wanted, text[:200]
    (tmp_path / INDEX).unlink()
    (tmp_path / INDEX).mkdir()
    assert SampledEvents(path).look() == wanted


@pytest.mark.usefixtures("small")
def test_an_index_that_names_other_places_is_ignored(tmp_path: Path) -> None:
    """Even if its checksum is right: it may have been made by anyone."""
    path = indexed(tmp_path)
    wanted = read_alone(path)
    whole = sampled_events._Index.model_validate_json((tmp_path / INDEX).read_bytes())
    kept = whole.groups["train"]
    (first, *others) = kept.points
    last = others[-1]
    for points in (
        [(0, 0, 2**40), *others],
        [first, *((place, start + 1, size) for place, start, size in others)],
        [first, *((place, start, size - 1) for place, start, size in others)],
        [first, *others[:-1], (last[0], whole.groups["gates"].points[-1][1], whole.groups["gates"].points[-1][2])],
        [first, *others[:-1], (last[0], 2**60, 100)],
    ):
        lying = kept.model_copy(update={"points": points})
        index = whole.model_copy(update={"groups": whole.groups | {"train": lying}})
        (tmp_path / INDEX).write_text(json.dumps(index.model_dump() | {"checksum": index.sum()}), encoding="utf-8")
        assert SampledEvents(path).look() == wanted, points[:2]


@pytest.mark.usefixtures("small")
def test_an_index_that_names_a_part_of_a_line_is_ignored(tmp_path: Path) -> None:
    """A newer program's field may hold what looks like an event."""
    path = tmp_path / "events.jsonl"
    inner = json.dumps(TrainEvent(step=1, time=1.0, loss=99.0).values())
    lines = [
        json.dumps(TrainEvent(step=i, time=1.0, loss=1.0).values() | {"newer": json.loads(inner)}) for i in range(9)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    wanted = SampledEvents(path).look()
    whole = sampled_events._Index.model_validate_json((tmp_path / INDEX).read_bytes())
    kept = whole.groups["train"]
    (_, start, _) = kept.points[0]
    lying = kept.model_copy(update={"points": [(0, start + lines[0].index(inner), len(inner)), *kept.points[1:]]})
    index = whole.model_copy(update={"groups": {"train": lying}})
    (tmp_path / INDEX).write_text(json.dumps(index.model_dump() | {"checksum": index.sum()}), encoding="utf-8")
    assert SampledEvents(path).look() == wanted


@pytest.mark.usefixtures("small")
def test_a_reader_that_goes_on_notices_other_content_in_the_same_file(tmp_path: Path) -> None:
    path = indexed(tmp_path)
    following = SampledEvents(path)
    following.look()
    inode = path.stat().st_ino
    path.write_text("", encoding="utf-8")
    add(path, [event(i) for i in range(7, 400)])
    assert path.stat().st_ino == inode
    assert following.look() == read_alone(path)


@pytest.mark.usefixtures("small")
def test_a_file_that_only_looks_unchanged_is_read_again(tmp_path: Path) -> None:
    path = indexed(tmp_path)
    status = path.stat()
    change_in_place(path, 3)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert SampledEvents(path).look() == read_alone(path)


@pytest.mark.usefixtures("small")
def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = indexed(tmp_path)
    kept = len(SampledEvents(path).look())
    parsed: list[bytes] = []

    def parse(line: bytes, where: str) -> Event | None:
        parsed.append(line)
        return parse_event(line, where)

    monkeypatch.setattr(sampled_events, "parse_event", parse)
    add(path, [event(300), event(301)])
    reader = SampledEvents(path)
    reader.look()
    assert len(parsed) == kept + 2 < 300
    add(path, [event(302)])
    reader.look()
    assert len(parsed) == kept + 3


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("place", [3, 290])
def test_a_damaged_line_is_told_with_its_number_at_every_look(place: int, tmp_path: Path) -> None:
    path = indexed(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:place], '{"kind": "train"}\n', *lines[place:]]), encoding="utf-8")
    with pytest.raises(RunError) as whole:
        Run(tmp_path).events()
    assert f"events.jsonl, line {place + 1}:" in str(whole.value)
    following = SampledEvents(path)
    for reader in (following, following, SampledEvents(path), following):
        with pytest.raises(RunError) as told:
            reader.look()
        assert str(told.value) == str(whole.value)
    path.write_text("".join(lines), encoding="utf-8")
    assert following.look() == SampledEvents(path).look() == read_alone(path)


def test_what_can_not_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(RunError, match=r"events\.jsonl: can't be read"):
        SampledEvents(tmp_path / "events.jsonl").look()
    with pytest.raises(RunError, match=r"events\.jsonl: can't be read"):
        Run(tmp_path).events()


@pytest.mark.usefixtures("small")
def test_a_folder_that_is_read_only_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, value: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(sampled_events, "write_json", refuse)
    path = tmp_path / "events.jsonl"
    add(path, [event(i) for i in range(300)])
    assert SampledEvents(path).look() == read_alone(path)
    assert not (tmp_path / INDEX).exists()


@pytest.mark.usefixtures("small")
def test_a_run_is_sampled_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.training.recording.INDEX_EVERY", FEW)
    run = Run(tmp_path)
    recorder = Recorder(run)
    monkeypatch.setattr(Run, "update", lambda self, **changes: None)
    monkeypatch.setattr(Run, "state", lambda self: FakeState())
    monkeypatch.setattr("hydralora.training.recording.run_progress", lambda state, recipe: FakeState())
    monkeypatch.setattr(Run, "recipe", lambda self: None)
    for i in range(1, 100, 2):
        recorder.record(event(i))
    index = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))
    assert 50 - FEW <= index["lines"] <= 50
    add(run.events_file, [TrainEvent(step=1, time=1.0, loss=1.0)])
    run.events_file.write_bytes(run.events_file.read_bytes() + b"damaged\n")
    for i in range(1, 30, 2):  # it goes on: who opens the run is told
        recorder.record(event(i))


class FakeState:
    fraction = 0.5

    def changed(self, **changes: object) -> "FakeState":
        return self


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Reading, following and rewinding 60,000 events, of which each would take a kilobyte and a half."""
    path = tmp_path / "events.jsonl"
    train = '{"step": %d, "time": 1.0, "kind": "train", "loss": %.6f, "gradient_norm": 0.5}\n'
    with path.open("w", encoding="utf-8") as file:
        file.writelines(train % (i, 1 / (1 + i % 997)) for i in range(60_000))
    reader = SampledEvents(path)
    tracemalloc.start()
    try:
        reader.look()
        reader.look()
        run = Run(tmp_path)
        run.before()
        assert run.rewind() == 0
        assert run.events() == [TrainEvent(step=0, time=1.0, loss=1.0, gradient_norm=0.5)]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * 2**20
