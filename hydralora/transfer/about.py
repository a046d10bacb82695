"""The record of an exported run, besides its recipe; validated field by field."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hydralora.models.fetching import BaseModelInfo
from hydralora.runs.events import EvalEvent, Event, NoteEvent, TrainEvent
from hydralora.runs.records import FROM_ELSEWHERE, LONGEST, Name, Record
from hydralora.runs.results import RunResults

ABOUT = "run.json"
ADAPTER = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "README.md")
MEMBERS = (*ADAPTER, "recipe.yaml", ABOUT, "events.jsonl")


def _short(base: BaseModelInfo) -> BaseModelInfo:
    if max(map(len, (base.id, base.source, base.hash))) > FROM_ELSEWHERE[LONGEST]:
        raise ValueError("a part of it is too long")
    return base


class About(Record):
    """An exported run's state and results, besides its recipe and events."""

    version: Literal[1]
    step: int
    max_steps: int | None
    base: Annotated[BaseModelInfo, AfterValidator(_short)]
    adapter_hash: Name
    k: int | None = None
    results: RunResults | None = None


def portable(event: Event) -> Event:
    """A copy for other machines, without data on this machine, its model's folder, or the rows."""
    if isinstance(event, TrainEvent):
        return event.without("usage")
    if isinstance(event, EvalEvent):
        return event.without("answers")
    return event.without("base", "data", "sizes", "k") if isinstance(event, NoteEvent) else event
