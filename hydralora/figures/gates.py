"""Figures of gates: of a token, and of the rows of components."""

from collections.abc import Sequence

import plotly.graph_objects as go

from hydralora.figures.base import figure_json, short
from hydralora.figures.palette import head_name


def component_by_head(names: Sequence[str], gates: Sequence[Sequence[float]], of: str = "component") -> str:
    """Mean gate of each head (columns) on each component's, or task's, held-out rows (rows)."""
    groups = [(name, row) for name, row in zip(names, gates, strict=True) if row]
    return figure_json(
        [
            go.Heatmap(
                z=[row for _, row in groups],
                x=[head_name(head) for head in range(len(groups[0][1]))] if groups else [],
                y=list(range(len(groups))),  # names may be numbers, or share their beginnings
                customdata=[[short(name)] * len(row) for name, row in groups],
                hovertemplate="%{customdata}<br>%{x}: %{z:.3f}<extra></extra>",
                zmin=0,
                zmax=1,
                colorscale="Cividis",
                texttemplate="%{z:.2f}",
                colorbar={"title": {"text": "gate"}, "thickness": 12},
            )
        ],
        title=f"Which head answers which {of}",
        height=160 + 40 * len(groups),
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(len(groups))),
            "ticktext": [short(name) for name, _ in groups],
            "autorange": "reversed",
            "automargin": True,
        },
    )
