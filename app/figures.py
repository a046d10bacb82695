"""Tables into Plotly figures, one function a figure, as JSON for the plot panel.

Colours of text, paper and grid are left to the panel, which follows the page's theme.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from app.palette import A_COLOUR, A_MARK, NEUTRAL, head_colour, head_mark, head_name
from hydralora.tuner.model import block_index

METHOD_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
TRIAL_NAMES = {"kmeans": "this page", "kneedle": "Kneedle", "silhouette": "best silhouette", "dbscan": "DBSCAN"}
ColourBy = Literal["component", "task", "length"]
LABEL = 32  # characters
CURVE_POINTS = 500
HEALTHY_ENTROPY = (0.3, 0.95)  # above: gates as good as uniform; below: one head takes nearly all
MOST_TASKS = 20  # that have a colour and mark of their own in the map
OTHER = "other tasks"
MARGIN = {"l": 56, "r": 16, "t": 40, "b": 48}


def component_number(
    sse: Sequence[tuple[int, float]], silhouette: Sequence[tuple[int, float]], k: int, of: str = ""
) -> str:
    """SSE and silhouette over k, with the chosen k marked; the zoom is of a dataset, `of`."""
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
    return _json(
        traces,
        title="How many components",
        meta={"axes": f"SSE {of}"},
        xaxis={"title": {"text": "k, number of components"}, "dtick": 2},
        yaxis={"title": {"text": "sum of squared distances"}, "rangemode": "tozero"},
        yaxis2={
            "title": {"text": "mean silhouette"},
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "rangemode": "tozero",
            "tickformat": ".1f",
        },
        margin=MARGIN | {"r": 64},
    )


def neighbour_distances(distances: Sequence[float], eps: float, min_samples: int, of: str = "") -> str:
    """DBSCAN's k-distance curve, and the eps at its knee; the zoom is of a dataset, `of`."""
    step = max(1, len(distances) // CURVE_POINTS)
    places = list(range(0, len(distances), step))
    return _json(
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
        title="How dense the rows lie",
        meta={"axes": f"density {of}"},
        xaxis={"title": {"text": "rows, sorted"}},
        yaxis={"title": {"text": f"distance to neighbour {min_samples}"}, "rangemode": "tozero"},
    )


def tasks_by_component(tasks: Sequence[str], components: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Rows of each task (rows) in each component (columns)."""
    return _json(
        [
            go.Heatmap(
                z=counts,
                x=[_short(component) for component in components],
                y=[_short(task) for task in tasks],
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


def _short(text: str) -> str:
    """A label that leaves room for the picture, and in which Plotly finds no HTML."""
    cut = text if len(text) <= LABEL else text[: LABEL - 1] + "…"
    return cut.replace("&", "&amp;").replace("<", "&lt;")


def sizes(names: Sequence[str], counts: Sequence[int]) -> str:
    """Rows in each component."""
    order = range(len(counts))
    return _json(
        [
            go.Bar(
                y=[f"{i + 1}: {_short(names[i])}" for i in order],
                x=list(counts),
                orientation="h",
                text=list(counts),
                marker={"color": [head_colour(i) for i in order], "line": {"color": "#555", "width": 1}},
            )
        ],
        title="Rows in each component",
        xaxis={"title": {"text": "rows"}},
        yaxis={"autorange": "reversed", "automargin": True},
    )


def token_lengths(histogram: Sequence[tuple[int, int, int]], max_length: int) -> str:
    """Rows by their length in tokens, and the limit beyond which a run cuts them or leaves them out."""
    highest = max(count for _, _, count in histogram)
    return _json(
        [
            go.Bar(
                x=[(low + below - 1) / 2 for low, below, _ in histogram],
                y=[count for _, _, count in histogram],
                width=[below - low for low, below, _ in histogram],
                text=[_span(low, below) for low, below, _ in histogram],
                textposition="none",
                hovertemplate="%{text} tokens<br>%{y} rows<extra></extra>",
                marker={"color": NEUTRAL[0]},
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
        xaxis={"title": {"text": "tokens"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "rows"}},
        showlegend=False,
    )


def _span(low: int, below: int) -> str:
    return str(low) if below == low + 1 else f"{low} to {below - 1}"


def row_map(
    points: Sequence[Sequence[float]],
    values: Sequence[Any],
    colour_by: ColourBy,
    hover: Sequence[str],
    ids: Sequence[int],
    method: str,
    names: Sequence[str],
    axes: str,
    of: str,
    selected: Sequence[int] | None = None,
) -> str:
    """Rows as points; customdata is a row's id.

    Args:
        values: of each row: its component, its task, or its length.
        names: of the components.
        axes: what the points' places depend on; the zoom outlives a new figure with the same.
        of: what the ids count in; the selection outlives a new figure of the same.
        selected: ids to select, anew at every call; None leaves the reader's selection.
    """
    traces = []
    for name, rows, style in _row_traces(values, colour_by, names):
        traces.append(
            go.Scattergl(
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
    wanted = {} if selected is None else {"selected": list(selected), "turn": secrets.token_hex(4)}
    return _json(
        traces,
        title=f"Map of the rows ({METHOD_NAMES[method]})",
        dragmode="lasso",
        height=520,
        meta={"axes": axes, "points": of} | wanted,
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
            out.append((_short(value) or "no task", rows, style))
        elif value < 0:
            out.append(("noise", rows, {"color": A_COLOUR, "symbol": A_MARK, "size": 6}))
        else:
            style = {"color": head_colour(value), "symbol": head_mark(value), "size": 7}
            out.append((f"{value + 1}: {_short(names[value])}", rows, style))
    return out


def number_trials(found: Sequence[tuple[str, Sequence[int]]]) -> str:
    """How often each method found each number of components."""
    counts = [
        (TRIAL_NAMES[method], number, times)
        for method, numbers in found
        for number, times in sorted(Counter(numbers).items())
    ]
    most = max((times for _, _, times in counts), default=1)
    return _json(
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


def loss(events: Sequence[dict[str, Any]]) -> str:
    """Training loss, and held-out loss where it was measured, over steps."""
    trained = _thinned([event for event in events if event["kind"] == "train"])
    sampled = _thinned([event for event in events if event["kind"] == "eval" and event["split"] == "live"])
    whole = [event for event in events if event["kind"] == "eval" and event["split"] != "live"]
    return _json(
        [
            go.Scatter(
                x=[event["step"] for event in trained],
                y=[event["loss"] for event in trained],
                mode="lines+markers",
                name="training",
                line={"color": "#0072B2"},
            ),
            go.Scatter(
                x=[event["step"] for event in sampled],
                y=[event["loss"] for event in sampled],
                mode="lines+markers",
                name="held-out sample",
                line={"color": "#D55E00", "dash": "dot"},
            ),
            go.Scatter(
                x=[event["step"] for event in whole],
                y=[event["loss"] for event in whole],
                mode="markers",
                name="all held-out rows",
                marker={"color": "#D55E00", "symbol": "diamond", "size": 10},
            ),
        ],
        title="Loss on the answers",
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "nats a token"}, "rangemode": "tozero"},
    )


def training_curves(events: Sequence[dict[str, Any]]) -> str:
    """Learning rate, gradient norm and speed over steps, one above the other."""
    trained = _thinned([event for event in events if event["kind"] == "train"])
    rows = (
        ("learning_rate", "learning rate"),
        ("gradient_norm", "gradient norm"),
        ("tokens_per_second", "tokens a second"),
    )
    share = 1 / len(rows)
    layout: dict[str, Any] = {}
    traces = []
    for i, (key, name) in enumerate(rows):
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
                x=[event["step"] for event in trained],
                y=[event.get(key) for event in trained],
                yaxis=f"y{axis}",
                mode="lines",
                name=name,
                line={"color": NEUTRAL[i]},
            )
        )
    xaxis = {"title": {"text": "step"}, "anchor": f"y{len(rows)}"}
    return _json(traces, title="How it trains", height=460, showlegend=False, xaxis=xaxis, **layout)


def group_losses(events: Sequence[dict[str, Any]]) -> str:
    """Held-out loss of each component over steps: of a sample while it trains, of all rows before and after."""
    found = [event for event in events if event["kind"] == "eval" and event.get("per_component")]
    groups = sorted({group for event in found for group in event["per_component"]}, key=int)
    return _json(
        [
            go.Scatter(
                x=[event["step"] for event in found if group in event["per_component"]],
                y=[event["per_component"][group]["loss"] for event in found if group in event["per_component"]],
                mode="lines+markers",
                name=f"component {int(group) + 1}",
                line={"color": head_colour(int(group))},
                marker={"symbol": head_mark(int(group))},
            )
            for group in groups
        ],
        title="Held-out loss of each component",
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "nats a token"}, "rangemode": "tozero"},
    )


def _thinned(points: Sequence[Any]) -> Sequence[Any]:
    """At most CURVE_POINTS of them, evenly, the last one always: a long run stays as quick to draw as a short one."""
    step = -(-len(points) // CURVE_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def losses(runs: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """Training loss of several runs over steps, with what all held-out rows gave before and after."""
    traces: list[Any] = []
    for i, (name, events) in enumerate(runs):
        look = {"color": NEUTRAL[i % len(NEUTRAL)]}
        for kind, mode, dash in (("train", "lines", "solid"), ("live", "lines", "dot"), ("whole", "markers", "solid")):
            found = _thinned([event for event in events if _loss_kind(event) == kind])
            traces.append(
                go.Scatter(
                    x=[event["step"] for event in found],
                    y=[event["loss"] for event in found],
                    mode=mode,
                    name=_short(name),
                    legendgroup=str(i),
                    showlegend=kind == "train",
                    line=look | {"dash": dash},
                    marker=look | {"symbol": head_mark(i), "size": 10},
                )
            )
    return _json(
        traces,
        title="Loss on the answers",
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "nats a token"}, "rangemode": "tozero"},
    )


def _loss_kind(event: dict[str, Any]) -> str:
    if event["kind"] != "eval":
        return event["kind"]
    return "live" if event["split"] == "live" else "whole"


def head_load(events: Sequence[dict[str, Any]]) -> str:
    """Mean gate of each head over steps, and the gates' entropy as a share of its maximum."""
    gates = _thinned([event for event in events if event["kind"] == "gates"])
    steps = [event["step"] for event in gates]
    count = len(gates[0]["mean_gate"]) if gates else 0
    traces: list[Any] = [
        go.Scatter(
            x=steps,
            y=[event["mean_gate"][head] for event in gates],
            mode="lines+markers",
            name=head_name(head),
            line={"color": head_colour(head)},
            marker={"symbol": head_mark(head)},
        )
        for head in range(count)
    ]
    traces.append(
        go.Scatter(
            x=steps,
            y=[event["entropy"] for event in gates],
            mode="lines",
            name="entropy",
            line={"color": A_COLOUR, "dash": "dash"},
        )
    )
    low, high = HEALTHY_ENTROPY
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high, "layer": "below"}
    return _json(
        traces,
        shapes=[band | {"line": {"width": 0}, "fillcolor": A_COLOUR, "opacity": 0.12}],
        title="Load of each head",
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "mean gate"}, "range": [0, 1]},
    )


def matrices(group: dict[str, Any], colour_by: str, first_id: int) -> str:
    """A's and heads of one shape as points; customdata counts the points from first_id."""
    points = group["points"]
    ids = {id(point): first_id + i for i, point in enumerate(points)}
    traces = []
    for name, members, style in _matrix_traces(points, colour_by):
        traces.append(
            go.Scattergl(
                x=[point["x"] for point in members],
                y=[point["y"] for point in members],
                customdata=[ids[id(point)] for point in members],
                text=[describe_matrix(point) for point in members],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                name=name,
                marker=style,
            )
        )
    r, width = group["shape"]
    return _json(
        traces,
        title=f"{len(points)} matrices of {r} x {width} ({METHOD_NAMES[group['method']]})",
        dragmode="lasso",
        height=440,
        meta={"axes": f"{group['shape']} {group['method']}", "points": str(group["shape"])},
        xaxis={"showticklabels": False},
        yaxis={"showticklabels": False},
    )


def describe_matrix(point: dict[str, Any]) -> str:
    return f"{point['module']}, {'A' if point['kind'] == 'A' else head_name(point['head'])}"


def gate_bars(gates: Sequence[float]) -> str:
    """One bar a head: its mean gate over the adapted layers, for one token."""
    heads = range(len(gates))
    return _json(
        [
            go.Bar(
                x=[head_name(head) for head in heads],
                y=list(gates),
                text=[f"{gate:.2f}" for gate in gates],
                marker={"color": [head_colour(head) for head in heads], "line": {"color": "#555", "width": 1}},
            )
        ],
        title="Gate of each head, mean over the layers",
        yaxis={"range": [0, 1], "fixedrange": True},
        height=240,
    )


def gate_heatmap(modules: Sequence[str], gates: Sequence[Sequence[float]]) -> str:
    """Gates of one token: a column for each layer, a row for each head and kind of module."""
    kinds = list(dict.fromkeys(module.rpartition(".")[2] for module in modules))
    layers = list(dict.fromkeys(block_index(module) for module in modules))
    count = len(gates[0])
    cells = {(module.rpartition(".")[2], block_index(module)): row for module, row in zip(modules, gates, strict=True)}
    rows, labels = [], []
    for head in range(count):
        for kind in kinds:
            rows.append([cells[kind, layer][head] if (kind, layer) in cells else None for layer in layers])
            labels.append(f"<span style='color:{head_colour(head)}'>■</span> {head_name(head)}, {kind}")
    return _json(
        [
            go.Heatmap(
                z=rows,
                x=[str(layer) for layer in layers],
                y=list(range(len(rows))),
                zmin=0,
                zmax=1,
                colorscale="Cividis",
                colorbar={"title": {"text": "gate"}, "thickness": 12},
                hovertemplate="layer %{x}<br>%{customdata}<br>gate %{z:.3f}<extra></extra>",
                customdata=[[label.partition("</span> ")[2]] * len(layers) for label in labels],
            )
        ],
        title="Gates by layer and head",
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


def component_by_head(names: Sequence[str], gates: Sequence[Sequence[float]]) -> str:
    """Mean gate of each head (columns) on each component's held-out rows (rows)."""
    kept = [(name, row) for name, row in zip(names, gates, strict=True) if row]
    return _json(
        [
            go.Heatmap(
                z=[row for _, row in kept],
                x=[head_name(head) for head in range(len(kept[0][1]))] if kept else [],
                y=[name for name, _ in kept],
                zmin=0,
                zmax=1,
                colorscale="Cividis",
                texttemplate="%{z:.2f}",
                colorbar={"title": {"text": "gate"}, "thickness": 12},
            )
        ],
        title="Which head answers which component",
        yaxis={"autorange": "reversed", "automargin": True},
    )


def _matrix_traces(points: list[dict[str, Any]], colour_by: str) -> list[tuple[str, list[dict[str, Any]], dict]]:
    """(name, points, marker) of every trace."""
    if colour_by == "layer":
        layers = [point["layer"] or 0 for point in points]
        scale = {
            "color": layers,
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": "layer"}, "thickness": 12},
            "size": 8,
            "symbol": [A_MARK if point["kind"] == "A" else head_mark(point["head"]) for point in points],
        }
        return [("matrix", points, scale)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault(_group_name(point, colour_by), []).append(point)
    out = []
    for i, (name, members) in enumerate(groups.items()):
        style: dict[str, Any] = {"color": NEUTRAL[i % len(NEUTRAL)], "symbol": head_mark(i), "size": 8}
        if name == "A":
            style |= {"color": A_COLOUR, "symbol": A_MARK}
        elif colour_by == "head":
            head = members[0]["head"]
            style |= {"color": head_colour(head), "symbol": head_mark(head)}
        out.append((name, members, style))
    return out


def _group_name(point: dict[str, Any], colour_by: str) -> str:
    if colour_by == "module":
        return str(point["module"].rpartition(".")[2])
    if point["kind"] == "A":
        return "A"
    return head_name(point["head"]) if colour_by == "head" else "B (heads)"


def _json(traces: Sequence[Any], **layout: Any) -> str:
    defaults: dict[str, Any] = {
        "margin": MARGIN,
        "height": 320,
        "legend": {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        "template": None,
    }
    title = layout.pop("title", "")
    return str(
        go.Figure(
            list(traces), layout=defaults | {"title": {"text": title, "font": {"size": 15}, "x": 0.02}} | layout
        ).to_json()
    )
