"""Figures of a dataset: its components, their number, its rows as points, their lengths."""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from hydralora.figures.base import MARGIN, figure_json, points_trace, short, thinned
from hydralora.figures.palette import A_COLOUR, A_MARK, NEUTRAL, head_colour, head_mark
from hydralora.projection import METHODS, Method

TRIAL_NAMES = {"kmeans": "this page", "kneedle": "Kneedle", "silhouette": "best silhouette", "dbscan": "DBSCAN"}
ColourBy = Literal["component", "task", "length"]
MOST_TASKS = 20  # with their own colour and mark in the map
OTHER = "other tasks"
NO_COMPONENT = "noise"


def component_number(
    sse: Sequence[tuple[int, float]], silhouette: Sequence[tuple[int, float]], k: int, of: str = ""
) -> str:
    """SSE and silhouette over k, with the chosen k marked; `of` names the dataset, for which the zoom is kept."""
    ks, values = zip(*sse, strict=True)
    traces: list[Any] = [
        go.Scatter(x=ks, y=values, mode="lines+markers", name="SSE", line={"color": "#0072B2"}),
        go.Scatter(
            x=[k],
            y=[dict(sse)[k]],
            mode="markers+text",
            text=[f"k = {k}"],
            textposition="top right",
            marker={"size": 14, "color": "#D55E00", "symbol": "diamond"},
            name="chosen",
        ),
    ]
    if silhouette:
        ks, values = zip(*silhouette, strict=True)
        traces.append(
            go.Scatter(
                x=ks,
                y=values,
                yaxis="y2",
                mode="lines+markers",
                name="silhouette",
                line={"color": "#CC79A7", "dash": "dot"},
                marker={"symbol": "square"},
            )
        )
    return figure_json(
        traces,
        title="How many components",
        meta={"axes": f"SSE {of}"},
        xaxis={"title": {"text": "k, number of components"}, "dtick": 2},
        yaxis={"title": {"text": "SSE"}, "rangemode": "tozero"},
        yaxis2={
            "title": {"text": "silhouette"},
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "rangemode": "tozero",
            "dtick": 0.1,
            "tickformat": ".1f",
        },
        margin=MARGIN | {"r": 64},
    )


def neighbour_distances(distances: Sequence[float], eps: float, min_samples: int, of: str = "") -> str:
    """DBSCAN's k-distance curve, and the eps at its knee; `of` names the dataset, for which the zoom is kept."""
    places = list(thinned(range(len(distances)), range(2))[0])  # the line of eps has two points
    return figure_json(
        [
            go.Scatter(
                x=places, y=[distances[i] for i in places], mode="lines", name="distance", line={"color": "#0072B2"}
            ),
            go.Scatter(
                x=[0, len(distances)],
                y=[eps, eps],
                mode="lines+text",
                text=[f"eps = {eps:.2f}", ""],
                textposition="top right",
                line={"color": "#D55E00", "dash": "dash"},
                name="eps, at the knee",
            ),
        ],
        title="Density of the rows",
        meta={"axes": f"density {of}"},
        xaxis={"title": {"text": "rows, sorted"}},
        yaxis={"title": {"text": f"distance to neighbour {min_samples}"}, "rangemode": "tozero"},
    )


def tasks_by_component(tasks: Sequence[str], components: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Rows of each task (rows) in each component (columns)."""
    return figure_json(
        [
            go.Heatmap(
                z=counts,
                x=[short(component) for component in components],
                y=[short(task) for task in tasks],
                colorscale="Cividis",
                texttemplate="%{z}",
                colorbar={"title": {"text": "rows"}, "thickness": 12},
            )
        ],
        title="Rows of each task in each component",
        yaxis={"autorange": "reversed", "automargin": True, "type": "category"},
        xaxis={"automargin": True, "type": "category"},
        meta={"axes": f"{tasks} {components}"},
        height=140 + 26 * len(tasks),
    )


def token_lengths(histogram: Sequence[tuple[int, int, int]], max_length: int) -> str:
    """Rows by their length in tokens, and the limit beyond which a run cuts them or leaves them out."""
    highest = max(count for _, _, count in histogram)
    width = histogram[0][1] - histogram[0][0]  # the last bar may stand for more lengths; it is drawn as wide as others
    overflow = len(histogram) > 1 and histogram[-1][1] - histogram[-1][0] > width
    return figure_json(
        [
            go.Bar(
                x=[low + (width - 1) / 2 for low, _, _ in histogram],
                y=[count for _, _, count in histogram],
                width=width,
                text=[_span(low, below) for low, below, _ in histogram],
                textposition="none",
                hovertemplate="%{text} tokens<br>%{y} rows<extra></extra>",
                marker={"color": [NEUTRAL[0]] * (len(histogram) - overflow) + [NEUTRAL[3]] * overflow},
                name="rows",
            ),
            go.Scatter(
                x=[max_length, max_length],
                y=[0, highest],
                mode="lines+text",
                text=["", f"limit {max_length}"],
                textposition="bottom left",
                line={"color": "#D55E00", "dash": "dash"},
                hoverinfo="skip",
                name="limit",
            ),
        ],
        title="Length of the rows",
        subtitle=f"The last bar holds all longer rows, up to {histogram[-1][1] - 1:,} tokens" if overflow else "",
        xaxis={"title": {"text": "tokens"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "rows"}},
        showlegend=False,
    )


def _span(low: int, below: int) -> str:
    return str(low) if below == low + 1 else f"{low} to {below - 1}"


def row_map(
    points: Sequence[Sequence[float]],
    values: Sequence[str] | Sequence[int],
    colour_by: ColourBy,
    hover: Sequence[str],
    ids: Sequence[int],
    method: Method,
    names: Sequence[str],
    axes: str,
    of: str,
    selected: Sequence[int] | None = None,
    legend: bool = True,
) -> str:
    """Rows as points; customdata is a row's id.

    Args:
        values: of each row: its component, its task, or its length.
        names: of the components.
        axes: what the points' positions depend on; a new figure with the same value keeps the zoom.
        of: what the ids refer to; a new figure with the same value keeps the selection.
        selected: ids to select, at every call; None keeps the user's selection.
        legend: whether components are named in the figure; noise and tasks always are.
    """
    traces = []
    trace = points_trace(len(values))
    for name, rows, style in _row_traces(values, colour_by, names):
        traces.append(
            trace(
                x=[points[i][0] for i in rows],
                y=[points[i][1] for i in rows],
                customdata=[ids[i] for i in rows],
                text=[hover[i] for i in rows],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                name=name,
                marker=style,
                unselected={"marker": {"color": A_COLOUR, "opacity": 0.25}},
            )
        )
    selection = {} if selected is None else {"selected": list(selected), "turn": secrets.token_hex(4)}
    return figure_json(
        traces,
        title=f"Map of the rows ({METHODS[method].name})",
        showlegend=legend or colour_by != "component" or NO_COMPONENT in {trace.name for trace in traces},
        dragmode="lasso",
        height=520,
        meta={"axes": axes, "points": of} | selection,
        xaxis={"showticklabels": False},
        yaxis={"showticklabels": False},
    )


def _row_traces(
    values: Sequence[Any], colour_by: ColourBy, names: Sequence[str]
) -> list[tuple[str, Sequence[int], dict[str, Any]]]:
    """(name, indices, marker) of every trace."""
    if colour_by == "length":
        bar = {"title": {"text": "characters"}, "thickness": 12}
        scale = {"color": list(values), "colorscale": "Cividis", "showscale": True, "colorbar": bar, "size": 7}
        return [("rows", range(len(values)), scale)]
    out: list[tuple[str, Sequence[int], dict[str, Any]]] = []
    if colour_by == "task":
        largest = {task for task, _ in Counter(values).most_common(MOST_TASKS)}
        values = [task if task in largest else OTHER for task in values]
    for place, value in enumerate(sorted(set(values))):
        rows = [i for i, of in enumerate(values) if of == value]
        if colour_by == "task":
            style = {"color": NEUTRAL[place % len(NEUTRAL)], "symbol": head_mark(place), "size": 7}
            out.append((short(value) or "no task", rows, style))
        elif value < 0:
            out.append((NO_COMPONENT, rows, {"color": A_COLOUR, "symbol": A_MARK, "size": 6}))
        else:
            style = {"color": head_colour(value), "symbol": head_mark(value), "size": 7}
            out.append((f"{value + 1}: {short(names[value])}", rows, style))
    return out


def number_trials(found: Sequence[tuple[str, Sequence[int]]]) -> str:
    """How often each method finds each number of components."""
    counts = [
        (TRIAL_NAMES[method], number, times)
        for method, numbers in found
        for number, times in sorted(Counter(numbers).items())
    ]
    most = max((times for _, _, times in counts), default=1)
    return figure_json(
        [
            go.Scatter(
                x=[number for _, number, _ in counts],
                y=[name for name, _, _ in counts],
                text=[str(times) for _, _, times in counts],
                mode="markers+text",
                textfont={"color": "#ffffff"},
                hovertemplate="%{y} found %{x} components in %{text} trials<extra></extra>",
                marker={
                    "size": [18 + 22 * times / most for _, _, times in counts],
                    "color": NEUTRAL[0],
                    "opacity": 1,
                },
            )
        ],
        title="Number of components that each method finds, and in how many trials",
        xaxis={"title": {"text": "number of components"}, "rangemode": "tozero"},
        yaxis={"automargin": True, "type": "category", "autorange": "reversed"},
    )
