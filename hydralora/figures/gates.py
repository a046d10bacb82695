"""Figures of gates: of a token, and of the rows of components."""

from collections.abc import Sequence

import plotly.graph_objects as go

from hydralora.figures.base import figure_json, short
from hydralora.figures.names import layer_grid
from hydralora.figures.palette import head_colour, head_name


def gate_bars(gates: Sequence[float], whose: str) -> str:
    """A bar per head: its mean gate over the adapted layers, for one token of an answer."""
    heads = range(len(gates))
    return figure_json(
        [
            go.Bar(
                x=[head_name(head) for head in heads],
                y=list(gates),
                text=[f"{gate:.2f}" for gate in gates],
                marker={"color": [head_colour(head) for head in heads], "line": {"color": "#555", "width": 1}},
            )
        ],
        title=f"Mean gate of each head: {whose}",
        yaxis={"range": [0, 1], "fixedrange": True},
        height=240,
    )


def gate_heatmap(modules: Sequence[str], gates: Sequence[Sequence[float]], title: str) -> str:
    """Gates (modules, N) of one token, or the mean of several: a column for each layer, a row for each head and kind of
    module."""
    cells = {(module, head): gate for module, row in zip(modules, gates, strict=True) for head, gate in enumerate(row)}
    layers, labels, rows = layer_grid(cells, len(gates[0]))
    return figure_json(
        [
            go.Heatmap(
                z=rows,
                x=layers,
                y=list(range(len(rows))),
                zmin=0,
                zmax=1,
                colorscale="Cividis",
                colorbar={"title": {"text": "gate"}, "thickness": 12},
                hovertemplate="layer %{x}<br>%{customdata}<br>gate %{z:.3f}<extra></extra>",
                customdata=[[label.partition("</span> ")[2]] * len(layers) for label in labels],
            )
        ],
        title=title,
        xaxis={"title": {"text": "layer"}, "type": "category"},
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": labels,
            "autorange": "reversed",
            "automargin": True,
        },
        height=120 + 22 * len(rows),
    )


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
