"""Many events that are read together: the same sample as of each read alone, and the same error about the same line."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydralora import RunError
from hydralora.runs import sampled_events
from hydralora.runs.events import Event, GatesEvent, TrainEvent
from hydralora.runs.sampled_events import SampledEvents
from tests.engine.runs.event_files import add, event, make_small

ALONE = 2**40  # bytes beyond which lines are read together
NUMBER = st.sampled_from([None, -1.0, 0.0, -0.0, 0.5, 1.0, 1.0, 2.0, 1e-300, 3e8])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(sampled_events, "PIECE", 37)


def sample(path: Path, columns: int, looks: int = 1) -> list[Event]:
    """What is kept of the events of a file that grows to its length in some looks."""
    whole, grown = path.read_bytes(), path.with_name(f"{columns}-{looks}.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled_events, "MANY", columns)
        patch.setattr(sampled_events, "BLOCK", 3 * columns)
        patch.setattr(sampled_events, "INDEX_EVERY", 10**9)
        events = SampledEvents(grown)
        for look in range(1, looks + 1):
            grown.write_bytes(whole[: len(whole) * look // looks])
            kept = events.look()
    return kept


@pytest.mark.parametrize("columns", [400, 3000, 20_000])
def test_usual_events_give_the_same_sample(columns: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    add(path, [event(i) for i in range(3000)])
    wanted = sample(path, ALONE)
    assert len(wanted) < 1000
    assert sample(path, columns) == wanted
    assert sample(path, columns, looks=5) == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=20, max_size=400), st.integers(0, 4))
def test_curves_of_any_shape_give_the_same_sample(
    tmp_path_factory: pytest.TempPathFactory, curve: list[tuple[float | None, ...]], heads: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    draw = random.Random(len(curve))
    for place, (loss, rate, speed) in enumerate(curve):
        gates = [draw.choice([0.0, 0.5, 0.5, 1.0]) for _ in range(heads)]
        add(path, [TrainEvent(step=place, time=0.0, loss=loss, learning_rate=rate, tokens_per_second=speed)])
        add(path, [GatesEvent(step=place, time=0.0, mean_gate=gates, entropy=loss)])
    assert sample(path, 300) == sample(path, ALONE)


WRONG = {
    "no JSON": "{",
    "no object": "7",
    "no kind": '{"step": 1, "time": 1}',
    "no step": '{"time": 1, "kind": "train", "loss": 1}',
    "a step that is a text": '{"step": "x", "time": 1, "kind": "train", "loss": 1}',
    "a loss that is a list": '{"step": 1, "time": 1, "kind": "train", "loss": [1]}',
    "a gate of two": '{"step": 1, "time": 1, "kind": "gates", "mean_gate": [2], "entropy": 0.5}',
    "gates that are a number": '{"step": 1, "time": 1, "kind": "gates", "mean_gate": 2, "entropy": 0.5}',
    "half a character": '{"step": 1, "time": 1, "kind": "note", "message": "\xff"}',
    "two in a line": '{"step": 1, "time": 1, "kind": "step"} {"step": 2, "time": 1, "kind": "step"}',
}
UNUSUAL = {
    "an empty line": "",
    "an unknown kind": '{"step": 1, "time": 1, "kind": "newer", "loss": [1]}',
    "a new field": '{"step": 1, "time": 1, "kind": "train", "loss": 0.5, "newer": {"a": [1]}}',
    "another number of heads": '{"step": 1, "time": 1, "kind": "gates", "mean_gate": [0.1, 0.2, 0.7], "entropy": 0.5}',
    "a whole number": '{"step": 1, "time": 1, "kind": "train", "loss": 3}',
    "a number without end": '{"step": 1, "time": 1, "kind": "train", "loss": 1e999}',
}


def with_line(path: Path, line: str, place: int) -> None:
    lines = [json.dumps(event(i).values()) for i in range(600)]
    path.write_bytes("\n".join([*lines[:place], line, *lines[place:], ""]).encode("latin-1"))


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("place", [0, 250])
def test_a_damaged_line_is_named_as_if_each_were_read_alone(name: str, place: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with_line(path, WRONG[name], place)
    told = []
    for columns in (ALONE, 2000):
        with pytest.raises(RunError) as error:
            sample(path, columns)
        told.append(str(error.value).partition(":")[2])
    assert told[0] == told[1]
    assert f"line {place + 1}" in str(error.value)


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("place", [0, 250])
def test_an_unusual_line_changes_nothing_of_the_others(name: str, place: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with_line(path, UNUSUAL[name], place)
    assert sample(path, 2000) == sample(path, ALONE)


def test_a_line_without_end_is_no_reason_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    add(path, [event(i) for i in range(50)])
    wanted = sample(path, ALONE)
    with path.open("a") as file:
        file.write('{"step": ' + "1" * 10_000)
    assert sample(path, 2000) == wanted
