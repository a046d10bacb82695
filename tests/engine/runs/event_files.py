"""Files of events for tests, with few events that count as many."""

import json
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hydralora.runs import sampled_events
from hydralora.runs.events import EvalEvent, Event, GatesEvent, NoteEvent, TrainEvent
from hydralora.runs.sampled_events import INDEX, SampledEvents

FEW = 7  # events after which the index is written, in these tests


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
