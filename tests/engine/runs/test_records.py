"""Records: what a run of ours may write, what a file from elsewhere may hold, and what a newer program may add."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydralora import RunError
from hydralora.runs.events import EvalEvent, NoteEvent, parse_event, read_events
from hydralora.runs.scores import Score, Scores
from hydralora.runs.state import parse_state

LONG = "a task with a long name " * 40
SCORE = {"loss": 1.0, "exact_match": 0.5, "rows": 3}
EVENT: dict[str, Any] = {"kind": "eval", "step": 1, "time": 0.0, "split": "after", **SCORE}


def test_names_of_ones_own_rows_may_be_long(tmp_path: Path) -> None:
    scores = Scores(**SCORE, per_task={LONG: Score(**SCORE)}, per_component={})
    event = EvalEvent(step=1, time=0.0, split="after", **scores.values())
    (tmp_path / "events.jsonl").write_text(json.dumps(event.values()) + "\n", encoding="utf-8")
    assert list(read_events(tmp_path / "events.jsonl")) == [event]


@pytest.mark.parametrize("change", [{"split": LONG}, {"per_task": {LONG: SCORE}}])
def test_names_from_elsewhere_are_bounded(change: dict[str, Any]) -> None:
    line = json.dumps(EVENT | change)
    assert parse_event(line, "here")
    with pytest.raises(RunError, match=r"^here: eval\."):
        parse_event(line, "here", from_elsewhere=True)


@pytest.mark.parametrize("stage", ["dreaming", [], {"a": 1}, 3])
def test_a_stage_that_is_not_known_is_none(stage: object) -> None:
    event = parse_event(json.dumps({"kind": "note", "step": 0, "time": 0.0, "stage": stage}), "here")
    assert isinstance(event, NoteEvent)
    assert event.stage is None
    state = {"version": 1, "id": "x", "state": "training", "step": 0, "max_steps": 1, "pid": None, "message": ""}
    assert parse_state(state | {"started": 0.0, "heartbeat": 0.0, "stage": stage}, "here").stage is None


def test_a_kind_that_only_a_newer_program_knows_is_left_out() -> None:
    assert parse_event(json.dumps({"kind": "dream", "step": 0, "time": 0.0}), "here") is None
    with pytest.raises(RunError, match="kind"):
        parse_event(json.dumps({"step": 0, "time": 0.0}), "here")
