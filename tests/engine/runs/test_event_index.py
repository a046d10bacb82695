"""An index of events in which anything is wrong, by chance or on purpose: it is ignored."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hydralora.runs import sampled_events
from hydralora.runs.events import TrainEvent
from hydralora.runs.sampled_events import INDEX, SampledEvents
from tests.engine.runs.event_files import indexed, make_small, read_alone

HOSTILE: tuple[Any, ...] = (None, "", "x", -1, 0, 1, 10**30, 1.5, True, [], {}, [[0, 0, 5]], [[0, 0, 2**61]])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events count as many."""
    make_small(monkeypatch)


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


def test_an_index_in_which_anything_is_wrong_is_ignored(tmp_path: Path) -> None:
    path = indexed(tmp_path)
    wanted, index = read_alone(path), (tmp_path / INDEX).read_text(encoding="utf-8")
    for text in texts(index):
        (tmp_path / INDEX).write_text(text, encoding="utf-8")
        assert SampledEvents(path).look() == wanted, text[:200]
    (tmp_path / INDEX).unlink()
    (tmp_path / INDEX).mkdir()
    assert SampledEvents(path).look() == wanted


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
