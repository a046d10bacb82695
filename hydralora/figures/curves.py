"""Figures of a run over its steps: losses, speed, the load of its heads."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import plotly.graph_objects as go

from hydralora.figures.base import figure_json, short, thinned_curves
from hydralora.figures.palette import A_COLOUR, NEUTRAL, head_colour, head_mark, head_name
from hydralora.runs.events import EvalEvent, Event, GatesEvent, TrainEvent

Axis = dict[str, Any]  # of a layout
HEALTHY_ENTROPY = (0.6, 0.95)  # above: gates are almost uniform; below: one head dominates


def loss(events: Sequence[Event]) -> str:
    """Training loss, and held-out loss where it was measured, over steps."""
    trained, sampled, whole = _thinned_losses(_losses(events))
    return figure_json(
        [
            go.Scatter(
                x=[event.step for event in trained],
                y=[event.loss for event in trained],
                mode="lines+markers",
                name="training",
                line={"color": "#0072B2"},
            ),
            go.Scatter(
                x=[event.step for event in sampled],
                y=[event.loss for event in sampled],
                mode="lines+markers",
                name="held-out sample",
                line={"color": "#D55E00", "dash": "dot"},
            ),
            go.Scatter(
                x=[event.step for event in whole],
                y=[event.loss for event in whole],
                mode="markers",
                name="all held-out rows",
                marker={"color": "#D55E00", "symbol": "diamond", "size": 10},
            ),
        ],
        title="Loss on the answers",
        xaxis=_axis("step", 1),
        yaxis=_loss_axis([event.loss for event in (*trained, *sampled, *whole)]),
    )


def _loss_axis(losses: Iterable[float | None]) -> Axis:
    """From 0 to the largest loss, or to 1 without any. It grows with the run, unless a reader has zoomed."""
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return _axis("nats per token", max(known, default=0) or 1)


def _axis(title: str, end: float) -> Axis:
    """From 0 to `end` at least; Plotly's own begins at -1 if there is one point or none."""
    return {"title": {"text": title}, "rangemode": "tozero", "autorangeoptions": {"include": [0, end]}}


def training_curves(events: Sequence[Event]) -> str:
    """Learning rate, gradient norm and speed over steps, one above the other."""
    rows = (
        ("learning_rate", "learning rate"),
        ("gradient_norm", "gradient norm"),
        ("tokens_per_second", "tokens a second"),
    )
    trained = [event for event in events if isinstance(event, TrainEvent)]
    curves = thinned_curves(*((trained, attrgetter(key)) for key, _ in rows))
    share = 1 / len(rows)
    layout: Axis = {}
    traces = []
    for i, ((key, name), points) in enumerate(zip(rows, curves, strict=True)):
        axis = "" if i == 0 else str(i + 1)
        top = 1 - i * share
        layout[f"yaxis{axis}"] = {
            "domain": [top - share + 0.06, top],
            "title": {"text": name},
            "rangemode": "tozero",
            "nticks": 4,
        }
        traces.append(
            go.Scatter(
                x=[event.step for event in points],
                y=[getattr(event, key) for event in points],
                yaxis=f"y{axis}",
                mode="lines",
                name=name,
                line={"color": NEUTRAL[i]},
            )
        )
    xaxis = _axis("step", 1) | {"anchor": f"y{len(rows)}"}
    return figure_json(traces, title="Training", height=460, showlegend=False, xaxis=xaxis, **layout)


def group_losses(events: Sequence[Event]) -> str:
    """Held-out loss of each component over steps: on a sample during training, on all rows before and after."""
    evaluations = [event for event in events if isinstance(event, EvalEvent) and event.per_component]
    groups = sorted({group for event in evaluations for group in event.per_component}, key=int)
    curves = thinned_curves(
        *(
            ([event for event in evaluations if group in event.per_component], partial(_group_loss, group))
            for group in groups
        )
    )
    return figure_json(
        [
            go.Scatter(
                x=[event.step for event in measured],
                y=[event.per_component[group].loss for event in measured],
                mode="lines+markers",
                name=f"component {int(group) + 1}",
                line={"color": head_colour(int(group))},
                marker={"symbol": head_mark(int(group))},
            )
            for group, measured in zip(groups, curves, strict=True)
        ],
        title="Held-out loss of each component",
        xaxis=_axis("step", 1),
        yaxis=_loss_axis(
            event.per_component[group].loss
            for group, measured in zip(groups, curves, strict=True)
            for event in measured
        ),
    )


def losses(runs: Sequence[tuple[str, Sequence[Event]]]) -> str:
    """Training loss of several runs over steps, with the loss on all held-out rows before and after."""
    looks = (("lines", "solid"), ("lines", "dot"), ("markers", "solid"))  # of each of `_losses`
    curves = iter(_thinned_losses([measured for _, events in runs for measured in _losses(events)]))
    traces: list[go.Scatter] = []
    for i, (name, _) in enumerate(runs):
        look = {"color": NEUTRAL[i % len(NEUTRAL)]}
        for place, (mode, dash) in enumerate(looks):
            measured = next(curves)
            traces.append(
                go.Scatter(
                    x=[event.step for event in measured],
                    y=[event.loss for event in measured],
                    mode=mode,
                    name=short(name),
                    legendgroup=str(i),
                    showlegend=place == 0,
                    line=look | {"dash": dash},
                    marker=look | {"symbol": head_mark(i), "size": 10},
                )
            )
    return figure_json(
        traces,
        title="Loss on the answers",
        xaxis=_axis("step", 1),
        yaxis=_loss_axis(loss for trace in traces for loss in trace.y),
    )


def _losses(events: Sequence[Event]) -> list[list[TrainEvent | EvalEvent]]:
    """The events with a loss: on a batch, on a sample of the held-out rows, on all of them."""
    evaluations = [event for event in events if isinstance(event, EvalEvent)]
    return [
        [event for event in events if isinstance(event, TrainEvent)],
        [event for event in evaluations if event.split == "live"],
        [event for event in evaluations if event.split != "live"],
    ]


def _thinned_losses(curves: Sequence[Sequence[TrainEvent | EvalEvent]]) -> list[Sequence[TrainEvent | EvalEvent]]:
    return thinned_curves(*((measured, attrgetter("loss")) for measured in curves))


def _group_loss(group: str, event: EvalEvent) -> float | None:
    return event.per_component[group].loss


def head_load(events: Sequence[Event]) -> str:
    """Mean gate of each head over steps, and the gates' entropy as a share of its maximum."""
    gates = [event for event in events if isinstance(event, GatesEvent)]
    count = len(gates[0].mean_gate) if gates else 0
    heads = [partial(_gate, head) for head in range(count)]
    *loads, entropies = thinned_curves(*((gates, load) for load in heads), (gates, attrgetter("entropy")))
    traces: list[go.Scatter] = [
        go.Scatter(
            x=[event.step for event in loads[head]],
            y=[heads[head](event) for event in loads[head]],
            mode="lines+markers",
            name=head_name(head),
            line={"color": head_colour(head)},
            marker={"symbol": head_mark(head)},
        )
        for head in range(count)
    ]
    traces.append(
        go.Scatter(
            x=[event.step for event in entropies],
            y=[event.entropy for event in entropies],
            mode="lines",
            name="entropy",
            line={"color": A_COLOUR, "dash": "dash"},
        )
    )
    low, high = HEALTHY_ENTROPY
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high, "layer": "below"}
    return figure_json(
        traces,
        shapes=[band | {"line": {"width": 0}, "fillcolor": A_COLOUR, "opacity": 0.12}],
        title="Load of each head",
        xaxis=_axis("step", 1),
        yaxis={"title": {"text": "mean gate"}, "range": [0, 1]},
    )


def _gate(head: int, event: GatesEvent) -> float | None:
    return event.mean_gate[head] if head < len(event.mean_gate) else None
