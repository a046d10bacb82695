"""The Breakdown view: what it would take, how far it is, and what was measured."""

import json
import shutil
from typing import Any

import pytest

from app.actions.explore import breakdown, shapes
from app.services import Services
from tests.conftest import FinishedRun
from tests.waiting import wait_until

STEPS = 4  # in the first the learning rate is 0, in the second A's gradient, since B is still 0


def last(services: Services, run_id: str | None) -> breakdown.BreakdownView:
    return list(breakdown.view(services, run_id, "pca"))[-1]


@pytest.mark.slow
def test_a_breakdown_is_offered_followed_and_measured(
    services: Services, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = last(services, finished.run.id)
    assert "It takes 3 LoRAs of rank 4." in offered.sentence
    assert (offered.ready, offered.working, offered.rows) == (True, False, [])
    breakdown.start(services, finished.run.id, STEPS)
    begun = last(services, finished.run.id)
    assert (begun.ready, begun.working) == (False, True)
    assert "0 of 3 LoRAs are trained" in begun.sentence

    def ended() -> bool:
        services.jobs.advance()
        return bool(last(services, finished.run.id).rows)

    wait_until(ended, 120)
    view = last(services, finished.run.id)
    assert not view.working
    assert {row[0] for row in view.rows} == {"A", "change of A", "B", "heads of the chosen run"}
    drawn: list[dict[str, Any]] = [trace for figure in view.figures for trace in json.loads(figure)["data"]]
    assert sum(len(trace["x"]) for trace in drawn) == 3 * 6 * 2
    assert len({trace["name"] for trace in drawn}) == 3  # a colour for each component
    assert view.sentence.startswith(f"After {STEPS} steps of each. The claim")
    assert "this run's heads lie" in view.sentence
    assert {row[breakdown.COLUMNS.index("apart")] for row in view.rows} <= {"yes", "no", "can't tell"}
    assert "PCA's axes" in view.caption
    assert view.ready
    monkeypatch.setattr(shapes, "PANELS", 1)
    (cut,) = breakdown.view(services, finished.run.id, "pca", ("4 x 80",))
    assert (cut.shapes, cut.drawn) == (["4 x 48", "4 x 80"], ["4 x 80"])
    assert "Not drawn: 4 x 48." in cut.caption
    assert json.loads(cut.figures[0])["layout"]["title"]["text"].endswith("matrices of 4 x 80")
    for run in services.store.all():
        if run.id != finished.run.id:  # which other tests share
            shutil.rmtree(run.folder)


def test_without_components_it_says_why(services: Services, finished: FinishedRun) -> None:
    assert "No run is chosen" in last(services, None).sentence
    run = services.store.create(finished.run.recipe())
    try:
        view = last(services, run.id)
        assert "no components yet" in view.sentence
        assert not view.ready
    finally:
        services.store.delete(run)
