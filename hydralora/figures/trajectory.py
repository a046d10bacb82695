"""How A and the heads move during training: an animated figure."""

from collections.abc import Sequence
from itertools import groupby

import plotly.graph_objects as go

from hydralora.analysis.matrices import MatrixPoint, PointGroup
from hydralora.figures.base import TWO_LINES, figure_json
from hydralora.figures.captions import how_drawn
from hydralora.figures.palette import A_COLOUR, A_MARK, head_colour, head_mark, head_name

FRAME_MILLISECONDS = 600
PICTURE = (0.3, 1.0)  # as shares of the height
LOSS = (0.04, 0.2)


def trajectory(group: PointGroup, losses: Sequence[tuple[int, float]]) -> str:
    """The matrices of one shape from step to step, with Play and a slider; the loss below.

    Args:
        group: of `project_matrices`, in two dimensions, of matrices that carry their step.
        losses: (step, training loss).
    """
    paths: dict[str, list[list[MatrixPoint]]] = {}  # by A or head: each module's points in order
    by_matrix = sorted(group.points, key=lambda point: (_name(point), point.module, point.step or 0))
    for (name, _), points in groupby(by_matrix, key=lambda point: (_name(point), point.module)):
        paths.setdefault(name, []).append(list(points))
    steps = sorted({point.step or 0 for point in group.points})
    still = go.Scatter(
        x=[step for step, _ in losses],
        y=[loss for _, loss in losses],
        mode="lines",
        line={"color": "#0072B2"},
        name="training loss",
        showlegend=False,
        yaxis="y2",
        xaxis="x2",
        hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
    )
    rows, columns = group.shape
    return figure_json(
        [*_moving(paths, steps[-1]), still, _marker(losses, steps[-1])],
        frames=[
            go.Frame(
                name=str(step),
                data=[*_moving(paths, step), _marker(losses, step)],
                traces=[*range(2 * len(paths)), 2 * len(paths) + 1],  # all but the loss
            )
            for step in steps
        ],
        title=f"{rows} x {columns}, from step {steps[0]} to {steps[-1]}",
        subtitle=how_drawn(group),
        height=576,
        xaxis={"showticklabels": False, "range": _range(group.points, "x"), "domain": [0, 1]},
        yaxis={"showticklabels": False, "range": _range(group.points, "y"), "domain": list(PICTURE)},
        xaxis2={"title": {"text": "step"}, "anchor": "y2", "domain": [0, 1]},
        yaxis2={"title": {"text": "loss"}, "anchor": "x2", "domain": list(LOSS), "rangemode": "tozero"},
        legend={"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        margin={"l": 56, "r": 16, "t": TWO_LINES, "b": 96},
        updatemenus=[_play()],
        sliders=[_slider(steps)],
    )


def _moving(paths: dict[str, list[list[MatrixPoint]]], until: int) -> list[go.Scatter]:
    """Two traces for each A or head: the path of its matrices, and their positions at a step."""
    traces: list[go.Scatter] = []
    for name, modules in paths.items():
        first = modules[0][0]
        colour = A_COLOUR if first.head is None else head_colour(first.head)
        mark = A_MARK if first.kind == "A" else head_mark(first.head or 0)
        x: list[float | None] = []
        y: list[float | None] = []
        now = []
        for points in modules:
            been = [point for point in points if (point.step or 0) <= until]
            x += [*(point.x for point in been), None]  # a gap, so that matrices are not joined
            y += [*(point.y for point in been), None]
            now += been[-1:]
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                line={"color": colour, "width": 1.5},
                opacity=0.6,
                name=name,
                showlegend=False,
                hoverinfo="skip",
            )
        )
        traces.append(
            go.Scatter(
                x=[point.x for point in now],
                y=[point.y for point in now],
                mode="markers",
                marker={"color": colour, "symbol": mark, "size": 10, "line": {"color": "#555", "width": 1}},
                text=[point.module for point in now],
                hovertemplate="%{text}, " + name + f", step {until}<extra></extra>",
                name=name,
            )
        )
    return traces


def _marker(losses: Sequence[tuple[int, float]], step: int) -> go.Scatter:
    """The step's position on the loss curve."""
    near = min(losses, key=lambda point: abs(point[0] - step), default=None)
    return go.Scatter(
        x=[step] if near else [],
        y=[near[1]] if near else [],
        mode="markers",
        marker={"color": "#D55E00", "size": 12, "symbol": "diamond"},
        xaxis="x2",
        yaxis="y2",
        showlegend=False,
        hoverinfo="skip",
    )


def _name(point: MatrixPoint) -> str:
    if point.kind == "A":
        return "A" if point.head is None else f"A of {head_name(point.head)}"
    return head_name(point.head or 0)


def _range(points: Sequence[MatrixPoint], axis: str) -> list[float]:
    """A fixed range, so that the axes don't move during the animation."""
    low, high = min(getattr(point, axis) for point in points), max(getattr(point, axis) for point in points)
    room = 0.06 * (high - low) or 1.0
    return [low - room, high + room]


def _play() -> dict[str, object]:
    moving = {
        "frame": {"duration": FRAME_MILLISECONDS, "redraw": False},
        "transition": {"duration": FRAME_MILLISECONDS // 2},
    }
    return {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": 44},
        "buttons": [
            {
                "label": "Play",
                "method": "animate",
                "args": [None, moving | {"fromcurrent": False, "mode": "immediate"}],
            },
            {"label": "Pause", "method": "animate", "args": [[None], {"mode": "immediate", "frame": {"duration": 0}}]},
        ],
    }


def _slider(steps: Sequence[int]) -> dict[str, object]:
    at_once = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    return {
        "active": len(steps) - 1,
        "x": 0.2,
        "len": 0.8,
        "currentvalue": {"prefix": "step "},
        "pad": {"t": 20},
        "steps": [{"label": str(step), "method": "animate", "args": [[str(step)], at_once]} for step in steps],
    }
