"""Heads that part while a run trains: still figures, drawn again at every snapshot."""

from collections.abc import Sequence

import plotly.graph_objects as go

from hydralora.analysis.matrices import PointGroup
from hydralora.figures.base import MARGIN, TWO_LINES, figure_json
from hydralora.figures.captions import how_drawn
from hydralora.figures.palette import head_colour, head_mark, head_name

HEIGHT = 380  # pixels: two of these and their controls fit a screen of 720


def head_distances(spreads: Sequence[tuple[int, Sequence[float]]], last_step: int) -> str:
    """Each head's distance from the mean of the heads, over the steps.

    Args:
        spreads: (step, distance of each head), in the order of the steps.
        last_step: where the run will end.
    """
    heads = len(spreads[0][1]) if spreads else 0
    traces = [
        go.Scatter(
            x=[step for step, _ in spreads],
            y=[distances[head] for _, distances in spreads],
            mode="lines+markers",
            line={"color": head_colour(head)},
            marker={"symbol": head_mark(head), "size": 9},
            name=head_name(head),
            hovertemplate="step %{x}: %{y:.3f}<extra>" + head_name(head) + "</extra>",
        )
        for head in range(heads)
    ]
    return figure_json(
        traces,
        title="How far the heads are apart",
        subtitle="distance of each head from the mean of the heads",
        height=HEIGHT,
        margin=MARGIN | {"t": TWO_LINES, "b": 88},
        xaxis={"title": {"text": "step"}, "range": [-0.5, last_step + 0.5]},
        yaxis={"rangemode": "tozero", "autorangeoptions": {"include": [0, 0.1]}},
    )


def head_paths(group: PointGroup, title: str) -> str:
    """The heads of one module in a plane, each with its way from the first snapshot to the newest.

    The projection is drawn so that head 1 ends at the upper right: a new snapshot then doesn't mirror the picture.

    Args:
        group: of `project_matrices`, in two dimensions, of one module's heads with their steps.
    """
    paths = [
        sorted((point for point in group.points if point.head == head), key=lambda point: point.step or 0)
        for head in sorted({point.head or 0 for point in group.points})
    ]
    end = paths[0][-1]
    across, up = (-1.0 if end.x < 0 else 1.0), (-1.0 if end.y < 0 else 1.0)
    traces = [
        go.Scatter(
            x=[across * point.x for point in path],
            y=[up * point.y for point in path],
            mode="lines+markers",
            line={"color": head_colour(head), "width": 1.5},
            marker={
                "symbol": head_mark(head),
                "size": [14 if point is path[-1] else 5 for point in path],
                "opacity": 1,
                "line": {"width": 0},
            },
            text=[f"step {point.step}" for point in path],
            name=head_name(head),
            hovertemplate="%{text}<extra>" + head_name(head) + "</extra>",
        )
        for head, path in enumerate(paths)
    ]
    return figure_json(
        traces,
        title=title,
        subtitle=how_drawn(group),
        height=HEIGHT,
        margin=MARGIN | {"t": TWO_LINES},
        xaxis={"showticklabels": False},
        yaxis={"showticklabels": False},
    )
