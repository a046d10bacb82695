"""A run's curves: light however long it was, and the first and the last step always there."""

import json
from typing import Any

import pytest

from hydralora import figures
from hydralora.figures.base import CURVE_POINTS, thinned
from hydralora.recipe.settings import default_value
from hydralora.runs.events import EvalEvent, Event, GatesEvent, TrainEvent
from hydralora.runs.scores import Score

HEADS = 8
STEPS = 6000


def long_run(steps: int = STEPS) -> list[Event]:
    """Everything measured at every step."""
    groups = {str(i): Score(loss=1.0, exact_match=0.5, rows=9) for i in range(HEADS)}

    def measured(split: str, step: int) -> EvalEvent:
        return EvalEvent(
            step=step, time=step, split=split, loss=1.0, exact_match=0.5, rows=9 * HEADS, per_component=groups
        )

    events: list[Event] = [measured("before", 0)]
    for step in range(1, steps + 1):
        events += [
            TrainEvent(step=step, time=step, loss=1.0, learning_rate=0.1, gradient_norm=1.0, tokens_per_second=9.0),
            GatesEvent(step=step, time=step, mean_gate=[1 / HEADS] * HEADS, entropy=0.9),
            measured("live", step),
        ]
    return [*events, measured("after", steps)]


def drawn(figure: str) -> list[dict[str, Any]]:
    return json.loads(figure)["data"]


@pytest.mark.parametrize("draw", [figures.loss, figures.training_curves, figures.group_losses, figures.head_load])
def test_a_figure_of_a_long_run_is_light_and_whole(draw: Any) -> None:
    traces = drawn(draw(long_run()))
    assert CURVE_POINTS == 2000
    assert CURVE_POINTS / 2 < sum(len(trace["x"]) for trace in traces) <= CURVE_POINTS
    for trace in traces:
        assert len(trace["x"]) == len(trace["y"])
        assert trace["x"] == sorted(trace["x"])
        assert (trace["x"][0] <= 1, trace["x"][-1]) == (True, STEPS)


def test_six_long_runs_share_the_points_of_one_figure() -> None:
    traces = drawn(figures.losses([(f"run {i}", long_run()) for i in range(6)]))
    assert len(traces) == 6 * 3
    assert CURVE_POINTS / 2 < sum(len(trace["x"]) for trace in traces) <= CURVE_POINTS
    assert [trace["x"] for trace in traces if trace["mode"] == "markers"] == [[0, STEPS]] * 6  # before and after
    assert all(len(trace["x"]) > 80 for trace in traces if trace["mode"] == "lines")


def test_short_runs_keep_every_point() -> None:
    traces = drawn(figures.losses([("run", long_run(50))]))
    assert [len(trace["x"]) for trace in traces] == [50, 50, 2]
    assert [len(trace["x"]) for trace in drawn(figures.head_load(long_run(50)))] == [50] * (HEADS + 1)


@pytest.mark.parametrize(
    "lengths", [(1000,), (2000,), (2001,), (3999,), (5, 4000), (1999, 1999), (0, 9999), (7,) * 900]
)
def test_short_traces_stay_and_long_ones_share_the_rest(lengths: tuple[int, ...]) -> None:
    kept = thinned(*map(range, lengths))
    assert sum(map(len, kept)) <= CURVE_POINTS
    for points, length in zip(kept, lengths, strict=True):
        assert len(set(points)) == len(points)
        assert list(points[-1:]) == list(range(length))[-1:]
        assert len(points) == length or len(points) >= min(length, CURVE_POINTS // len(lengths)) // 2


def test_the_healthy_band_begins_where_a_router_starts_from_components() -> None:
    (band,) = json.loads(figures.head_load(long_run(5)))["layout"]["shapes"]
    assert (band["y0"], band["y1"]) == (default_value("tuner.router_entropy"), 0.95)


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([], 1),
        ([EvalEvent(step=0, time=0, split="before", loss=None, exact_match=0.5, rows=9)], 1),
        ([TrainEvent(step=1, time=1, loss=0.0)], 1),
        ([TrainEvent(step=1, time=1, loss=2.0)], 2.0),
        ([TrainEvent(step=1, time=1, loss=2.0), TrainEvent(step=2, time=2, loss=0.5)], 2.0),
    ],
)
def test_axes_begin_at_zero_and_the_loss_ends_at_the_largest(events: list[Event], end: float) -> None:
    """Plotly's own would be from -1 to 1 where there is one point or none."""
    for figure in (figures.loss(events), figures.losses([("run", events)])):
        layout = json.loads(figure)["layout"]
        assert layout["yaxis"]["autorangeoptions"]["include"] == [0, end]
        assert layout["xaxis"]["autorangeoptions"]["include"] == [0, 1]
        assert layout["xaxis"]["rangemode"] == layout["yaxis"]["rangemode"] == "tozero"
    groups = json.loads(figures.group_losses(long_run(3)))["layout"]["yaxis"]
    assert groups["autorangeoptions"]["include"] == [0, 1]
    assert json.loads(figures.head_load([]))["layout"]["xaxis"]["rangemode"] == "tozero"
