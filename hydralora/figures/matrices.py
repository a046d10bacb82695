"""Figures of A, heads and their products: as points, by cosines and singular values, by layer."""

from collections.abc import Sequence
from typing import Literal, get_args

import plotly.graph_objects as go

from hydralora.analysis.heads import HeadMeasures
from hydralora.analysis.matrices import MatrixPoint, PointGroup
from hydralora.errors import ConfigError
from hydralora.figures.base import escaped, figure_json, points_trace, short, short_end
from hydralora.figures.captions import how_drawn
from hydralora.figures.names import layer_grid, module_name
from hydralora.figures.palette import A_COLOUR, A_MARK, NEUTRAL, head_colour, head_mark, head_name

MatrixColour = Literal["head", "kind", "layer", "module", "run", "step"]
Measure = Literal["similarity", "norm", "effective_rank", "moved"]
KINDS = {"A": "A", "head": "B (heads)", "product": "B·A"}
MEASURES: dict[Measure, str] = {
    "similarity": "mean cosine to the layer's other heads",
    "norm": "Frobenius norm",
    "effective_rank": "effective rank",
    "moved": "distance from the start",
}
LIGHT_DIVERGING = [[0, "#d6604d"], [0.5, "#f7f7f7"], [1, "#6baed6"]]  # -1, 0, 1: text can be read on each
WRITTEN_CELLS = 160  # up to which a heatmap's cells hold their values
SYMBOLS_3D = (
    "circle",
    "square",
    "diamond",
    "cross",
    "circle-open",
    "square-open",
    "diamond-open",
    "x",
)  # all that there are


def matrices(group: PointGroup, colour_by: MatrixColour, first_id: int = 0) -> str:
    """The matrices of one shape as points, in two or three dimensions; customdata numbers the points from first_id."""
    points = group.points
    solid = bool(points) and points[0].z is not None
    places = {id(point): first_id + i for i, point in enumerate(points)}
    several = len({point.run for point in points}) > 1
    traces = []
    for name, members, style in _traces(points, colour_by):
        axes = {axis: [getattr(point, axis) for point in members] for axis in ("xyz" if solid else "xy")}
        shared = {
            "customdata": [places[id(point)] for point in members],
            "text": [describe_matrix(point, escaped(point.run) if several else "") for point in members],
            "hovertemplate": "%{text}<extra></extra>",
            "mode": "markers",
            "name": short(name),
        }
        if solid:
            marks = style["symbol"]
            listed = marks if isinstance(marks, list) else [marks] * len(members)
            style = style | {"size": 4, "symbol": [_solid_mark(str(mark)) for mark in listed]}
            traces.append(go.Scatter3d(**axes, **shared, marker=style))
        else:
            traces.append(points_trace(len(points))(**axes, **shared, marker=style))
    rows, columns = group.shape
    hidden = {"showticklabels": False, "title": {"text": ""}}
    return figure_json(
        traces,
        title=f"{_what(points)} of {rows} x {columns}",
        subtitle=how_drawn(group),
        dragmode="turntable" if solid else "lasso",
        height=488,
        meta={"axes": f"{group.shape} {group.method} {solid}", "points": f"{group.shape} {first_id}"},
        **(
            {"scene": dict.fromkeys(("xaxis", "yaxis", "zaxis"), hidden)}
            if solid
            else {"xaxis": hidden, "yaxis": hidden}
        ),
    )


def group_figure(group: PointGroup, colour_by: MatrixColour, first_id: int = 0) -> str:
    """The matrices of one shape as points; fewer than 5, which have no neighbourhoods, by their cosines.

    Raises:
        ConfigError: an unknown `colour_by`.
    """
    if colour_by not in get_args(MatrixColour):
        raise ConfigError(
            f"Points can't be coloured by {colour_by!r}. Choose one of {', '.join(get_args(MatrixColour))}."
        )
    if group.cosines is None:
        return matrices(group, colour_by, first_id)
    rows, columns = group.shape
    several = len({point.run for point in group.points}) > 1
    names = [describe_matrix(point, point.run if several else "") for point in group.points]
    return cosine_matrix(names, group.cosines, f"Cosines of {len(names)} matrices of {rows} x {columns}")


def describe_matrix(point: MatrixPoint, run: str = "") -> str:
    """A matrix in words: its module and kind; its step if it is from a snapshot; its run if given."""
    which = {"A": "A", "product": "B·A"}.get(point.kind, "B")
    head = "" if point.head is None else f" of {head_name(point.head)}"
    step = "" if point.step is None else f", step {point.step}"
    return f"{module_name(point.module)}, {which}{head}{step}{', ' + run if run else ''}"


def cosine_matrix(names: Sequence[str], values: Sequence[Sequence[float | None]], title: str) -> str:
    """Pairwise cosines of a few matrices; empty for a zero matrix."""
    labels = _labels(names)
    return figure_json(
        [
            go.Heatmap(
                z=values,
                x=labels,
                y=labels,
                zmin=-1,
                zmax=1,
                colorscale="RdBu",
                texttemplate="%{z:.2f}",
                hovertext=[[f"{escaped(name)}<br>{escaped(other)}" for other in names] for name in names],
                hovertemplate="%{hovertext}<br>cosine %{z:.3f}<extra></extra>",
                colorbar={"title": {"text": "cosine"}, "thickness": 12},
            )
        ],
        title=title,
        height=160 + 40 * len(names),
        xaxis={"automargin": True, "type": "category"},
        yaxis={"automargin": True, "type": "category", "autorange": "reversed"},
    )


def _labels(names: Sequence[str]) -> list[str]:
    """Short and unique labels: Plotly draws equal labels as a single row."""
    cut = [short_end(name) for name in names]
    return [f"{i}: {label}" if cut.count(label) > 1 else label for i, label in enumerate(cut, 1)]


def singular_values(values: Sequence[float], effective_rank: float, title: str) -> str:
    """A matrix's singular values, largest first."""
    return figure_json(
        [
            go.Bar(
                x=list(range(1, len(values) + 1)),
                y=list(values),
                marker={"color": NEUTRAL[0]},
                hovertemplate="%{y:.4g}<extra></extra>",
            )
        ],
        title=f"Singular values of {short_end(title)}",
        height=240,
        xaxis={"title": {"text": f"effective rank {effective_rank:.2f} of {len(values)}"}, "dtick": 1},
        yaxis={"rangemode": "tozero"},
    )


def head_measures(rows: Sequence[HeadMeasures], measure: Measure) -> str:
    """One measure of every head: a column for each layer, a row for each head and kind of module."""
    layers, labels, values = layer_grid(
        {(row.module, row.head): getattr(row, measure) for row in rows}, 1 + max(row.head for row in rows)
    )
    alike = {"zmin": -1, "zmax": 1, "colorscale": LIGHT_DIVERGING}
    places = list(range(len(values)))
    return figure_json(
        [
            go.Heatmap(
                z=values,
                x=layers,
                y=places,
                hovertemplate="layer %{x}<br>%{customdata}<br>%{z:.4g}<extra></extra>",
                customdata=[[label.partition("</span> ")[2]] * len(layers) for label in labels],
                texttemplate="%{z:.2g}" if len(values) * len(layers) <= WRITTEN_CELLS else "",
                colorbar={"thickness": 12},
                **(alike if measure == "similarity" else {"colorscale": "Blues"}),
            )
        ],
        title=f"Heads: {MEASURES[measure]}",
        height=120 + max(22 * len(values), 160),
        xaxis={"title": {"text": "layer"}, "type": "category"},
        yaxis={
            "tickmode": "array",
            "tickvals": places,
            "ticktext": labels,
            "autorange": "reversed",
            "automargin": True,
        },
    )


def _what(points: Sequence[MatrixPoint]) -> str:
    """How many of what: "28 heads", or "35 matrices" where there are several kinds."""
    kinds = {point.kind for point in points}
    names = {"head": "heads", "A": "A matrices", "product": "products B·A"}
    return f"{len(points)} {names[kinds.pop()] if len(kinds) == 1 else 'matrices'}"


def _mark(point: MatrixPoint) -> str:
    return A_MARK if point.kind == "A" else head_mark(point.head or 0)


def _solid_mark(mark: str) -> str:
    """The most similar mark in three dimensions, where there are eight."""
    others = {"triangle-up": "circle-open", "star": "diamond-open", "hexagon": "square-open", "bowtie": "x"}
    return mark if mark in SYMBOLS_3D else others[mark]


def _traces(
    points: Sequence[MatrixPoint], colour_by: MatrixColour
) -> list[tuple[str, list[MatrixPoint], dict[str, object]]]:
    """(name, points, marker) of every trace."""
    if colour_by in ("layer", "step"):
        values = [point.step if colour_by == "step" else point.layer for point in points]
        end = 1 + max((value for value in values if value is not None), default=-1)  # the adapter itself, behind all
        scale: dict[str, object] = {
            "color": [(end if colour_by == "step" else 0) if value is None else value for value in values],
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": colour_by}, "thickness": 12},
            "size": 8,
            "symbol": [_mark(point) for point in points],
        }
        return [("matrix", list(points), scale)]
    groups: dict[str, list[MatrixPoint]] = {}
    for point in points:
        groups.setdefault(_group_name(point, colour_by), []).append(point)
    out = []
    for i, (name, members) in enumerate(groups.items()):
        style: dict[str, object] = {"color": NEUTRAL[i % len(NEUTRAL)], "symbol": head_mark(i), "size": 8}
        if colour_by == "run":
            style["color"] = head_colour(i)
            style["symbol"] = [A_MARK if point.kind == "A" else head_mark(i) for point in members]
        if name == "A":
            style |= {"color": A_COLOUR, "symbol": A_MARK}
        elif colour_by == "head":
            head = members[0].head or 0
            style |= {"color": head_colour(head), "symbol": head_mark(head)}
        out.append((name, members, style))
    return out


def _group_name(point: MatrixPoint, colour_by: MatrixColour) -> str:
    if colour_by == "module":
        return point.module.rpartition(".")[2]
    if colour_by == "run":
        return point.run
    if point.kind == "A":
        return "A"
    return head_name(point.head or 0) if colour_by == "head" else KINDS[point.kind]
