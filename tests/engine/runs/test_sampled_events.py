"""A run's events as figures see them: a sample that an index beside them never changes."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydralora import RunError, figures
from hydralora.runs import sampled_events
from hydralora.runs.events import (
    Event,
    TrainEvent,
    keep_events,
    parse_event,
    write_events,
)
from hydralora.runs.run import Run
from hydralora.runs.sampled_events import INDEX, SampledEvents
from hydralora.training.recording import Recorder
from tests.engine.runs.event_files import FEW, add, event, indexed, make_small, read_alone


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events count as many."""
    make_small(monkeypatch)


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
