"""What all figures share. Colours of text, paper and grid are left to the page, which follows its theme."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

METHOD_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
CURVE_POINTS = 500
MARGIN = {"l": 56, "r": 16, "t": 40, "b": 48}
LABEL = 32  # characters


def short(text: str) -> str:
    """A label that leaves room for the picture, and in which Plotly finds no HTML."""
    cut = text if len(text) <= LABEL else text[: LABEL - 1] + "…"
    return cut.replace("&", "&amp;").replace("<", "&lt;")


def thinned(points: Sequence[Any]) -> Sequence[Any]:
    """At most CURVE_POINTS of them, evenly, the last one always: a long run stays as quick to draw as a short one."""
    step = -(-len(points) // CURVE_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def figure_json(traces: Sequence[Any], frames: Sequence[Any] = (), **layout: Any) -> str:
    """A figure as JSON; `frames` are for one that plays."""
    defaults: dict[str, Any] = {
        "margin": MARGIN,
        "height": 320,
        "legend": {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        "template": None,
    }
    title = layout.pop("title", "")
    return str(
        go.Figure(
            list(traces),
            layout=defaults | {"title": {"text": title, "font": {"size": 15}, "x": 0.02}} | layout,
            frames=list(frames),
        ).to_json()
    )
