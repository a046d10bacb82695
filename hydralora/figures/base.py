"""Common code of all figures. The page sets the colours of text, paper and grid, by its theme."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

from hydralora.runs.downsampling import extremes

T = TypeVar("T")

CURVE_POINTS = 2000  # of all traces of a figure together
SVG_POINTS = 2000  # up to which a browser draws points fast enough without WebGL
MARGIN = {"l": 56, "r": 16, "t": 40, "b": 48}
TWO_LINES = 68  # pixels that a title and a subtitle take
AT_THE_TOP = {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}}
LABEL = 32  # characters


def short(text: str) -> str:
    """A short label, escaped so that Plotly finds no HTML."""
    return escaped(text if len(text) <= LABEL else text[: LABEL - 1] + "…")


def short_end(text: str) -> str:
    """The same for names that differ at their ends."""
    return escaped(text if len(text) <= LABEL else "…" + text[1 - LABEL :])


def escaped(text: str) -> str:
    """A text in which Plotly finds no HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def thinned(*traces: Sequence[T]) -> list[Sequence[T]]:
    """Thin a figure's traces to CURVE_POINTS points in total, so that a long run is drawn as fast as a short one.

    Short traces keep all points; long ones share the rest, sampled evenly and including their last points.
    """
    return [_evenly(points, most) for points, most in zip(traces, _shares(traces), strict=True)]


def thinned_curves(*curves: tuple[Sequence[T], Callable[[T], float | None]]) -> list[Sequence[T]]:
    """Thin curves in the same way, but keep the extremes of each: its points, and a point's value on it."""
    shares = _shares([points for points, _ in curves])
    return [_spikes_kept(points, value, most) for (points, value), most in zip(curves, shares, strict=True)]


def _shares(traces: Sequence[Sequence[object]]) -> list[int]:
    """How many points each trace may keep."""
    shares = [0] * len(traces)
    remaining = CURVE_POINTS
    for done, i in enumerate(sorted(range(len(traces)), key=lambda i: len(traces[i]))):
        shares[i] = min(len(traces[i]), remaining // (len(traces) - done))
        remaining -= shares[i]
    return shares


def _spikes_kept(points: Sequence[T], value: Callable[[T], float | None], most: int) -> Sequence[T]:
    """The first and the last point, and of equally many between them each time the extremes."""
    unknown = any(known is None or known != known for known in map(value, points))
    buckets = (most - 2) // (2 + unknown)  # of a bucket's points, the least, the greatest and one without a value
    if len(points) <= most or buckets < 1:
        return _evenly(points, most)
    width = -(-(len(points) - 2) // buckets)
    between = [points[start : min(start + width, len(points) - 1)] for start in range(1, len(points) - 1, width)]
    kept = [extremes(bucket, lambda point: {"": value(point)}) for bucket in between]
    # Where a curve is flat, both ends, so that it has as many points there as elsewhere.
    whole = [
        [*few, bucket[-1]] if len(few) < min(2, len(bucket)) else few for few, bucket in zip(kept, between, strict=True)
    ]
    return [points[0], *chain.from_iterable(whole), points[-1]]


def _evenly(points: Sequence[T], most: int) -> Sequence[T]:
    if len(points) <= most:
        return points
    if most < 2:
        return points[len(points) - most :]
    step = -(-(len(points) - 1) // (most - 1))
    return [*points[:-1:step], points[-1]]


def points_trace(count: int) -> type[go.Scatter] | type[go.Scattergl]:
    """The kind of trace for a figure of `count` points: SVG, which every browser draws, or WebGL for many points.

    Where there is no WebGL, the page draws those as SVG as well (app/widgets/plot.js).
    """
    return go.Scatter if count < SVG_POINTS else go.Scattergl


def figure_json(traces: Sequence[BaseTraceType], frames: Sequence[go.Frame] = (), **layout: object) -> str:
    """A figure as JSON; `frames` animate it, a `subtitle` is a smaller line under the title."""
    defaults: dict[str, object] = {
        "margin": MARGIN,
        "height": 320,
        "legend": {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        "template": None,
    }
    title: dict[str, object] = {"text": layout.pop("title", ""), "font": {"size": 15}, "x": 0.02}
    if subtitle := layout.pop("subtitle", ""):
        title |= AT_THE_TOP | {"subtitle": {"text": subtitle, "font": {"size": 12}}}
        defaults["margin"] = MARGIN | {"t": TWO_LINES}
    return str(
        go.Figure(
            list(traces),
            layout=defaults | {"title": title} | layout,
            frames=list(frames),
        ).to_json()
    )
