"""Figures of a study: what its arms measured beside one another, what the paper found, and the values tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from hydralora.figures.base import MARGIN, TWO_LINES, escaped, figure_json, short, thinned
from hydralora.figures.palette import A_COLOUR, HEAD_MARKS, NEUTRAL

ROW = 34  # pixels of an arm's line
RATIO = 20  # of the largest to the smallest value, from which an axis is logarithmic
ONE_SEED = "one seed: there is no interval"
OURS, REFERENCE = NEUTRAL[0], A_COLOUR


@dataclass(frozen=True)
class ArmMean:
    """What an arm measured.

    Attributes:
        values: of its seeds.
        low, high: of the mean's 95 % interval; None for one seed.
        x: its place on the axis of a figure of lines.
    """

    name: str
    mean: float
    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    x: float | None = None


def arm_means(arms: Sequence[ArmMean], label: str, reference: str) -> str:
    """Each arm's mean with its interval, and its seeds as dots, one arm a line.

    Args:
        label: the measure, with its unit.
        reference: the arm that the others are compared with; a dotted line goes through its mean.
    """
    names = _labels([arm.name for arm in arms])
    seeds = [(names[arm.name], value) for arm in arms for value in arm.values]
    known = next((arm for arm in arms if arm.name == reference), None)
    known_intervals = any(arm.low is not None for arm in arms)
    traces = [
        go.Scatter(
            x=[value for _, value in seeds],
            y=[name for name, _ in seeds],
            mode="markers",
            name="one seed",
            marker={"color": OURS, "size": 6, "opacity": 0.6},
            hovertemplate="%{y}: %{x:.4g}<extra>one seed</extra>",
        ),
        go.Scatter(
            x=[arm.mean for arm in arms],
            y=[names[arm.name] for arm in arms],
            error_x=_errors(arms, A_COLOUR),
            mode="markers",
            name="mean and 95 % interval" if known_intervals else "mean",
            marker={
                "color": [REFERENCE if arm.name == reference else OURS for arm in arms],
                "size": 10,
                "symbol": "diamond",
            },
            hovertemplate="%{y}: %{x:.4g}<extra>mean</extra>",
        ),
    ]
    dotted = {"color": REFERENCE, "dash": "dot", "width": 1}
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "layer": "below", "line": dotted}
    return figure_json(
        traces,
        title="What we measured",
        subtitle="each arm's mean with its 95 % interval, and each seed" if known_intervals else ONE_SEED,
        shapes=[line | {"x0": known.mean, "x1": known.mean}] if known else [],
        height=_height(len(arms)),
        showlegend=False,
        margin=MARGIN | {"t": TWO_LINES},
        xaxis={"title": {"text": escaped(label)}, "nticks": 6},
        yaxis=_categories([names[arm.name] for arm in arms]),
    )


def arm_lines(lines: Mapping[str, Sequence[ArmMean]], across: str, label: str, level: ArmMean | None = None) -> str:
    """Arms over the values of an axis: means with intervals as lines, seeds as dots.

    Args:
        lines: an arm's means in the order of their `x`, by its name.
        across: what the axis holds.
        level: an arm without a place on the axis, drawn as a level.
    """
    shown = list(thinned(*lines.values()))
    traces: list[go.Scatter] = []
    for i, (name, arms) in enumerate(zip(lines, shown, strict=True)):
        colour, mark = NEUTRAL[i % len(NEUTRAL)], HEAD_MARKS[i % len(HEAD_MARKS)]
        seeds = [(arm.x, value) for arm in arms for value in arm.values]
        group = {"legendgroup": str(i), "name": short(name)}
        traces += [
            go.Scatter(
                x=[arm.x for arm in arms],
                y=[arm.mean for arm in arms],
                error_y=_errors(arms, colour),
                mode="lines+markers",
                line={"color": colour},
                marker={"symbol": mark, "size": 9},
                **group,
            ),
            go.Scatter(
                x=[x for x, _ in seeds],
                y=[value for _, value in seeds],
                mode="markers",
                marker={"color": colour, "size": 6, "opacity": 0.6},
                showlegend=False,
                **group,
            ),
        ]
    places = sorted({arm.x for arms in shown for arm in arms if arm.x is not None})
    if level and places:
        traces.append(
            go.Scatter(
                x=[places[0], places[-1]],
                y=[level.mean] * 2,
                mode="lines",
                name=short(level.name),
                line={"color": REFERENCE, "dash": "dash"},
            )
        )
    return figure_json(
        traces,
        title="What we measured",
        subtitle=f"{escaped(label)}: means with their 95 % intervals, and each seed",
        height=360,
        margin=MARGIN | {"t": TWO_LINES, "b": 72},
        xaxis=_axis(across, places) | {"tickmode": "array", "tickvals": places, "ticktext": [f"{x:g}" for x in places]},
        yaxis={"nticks": 6},
    )


def paper_values(values: Mapping[str, float], measure: str, source: str) -> str:
    """What the paper found, by arm; it gives no intervals.

    Args:
        measure: the paper's, with its unit.
    """
    names = _labels(list(values))
    labels = list(names.values())
    return figure_json(
        [
            go.Scatter(
                x=list(values.values()),
                y=labels,
                mode="markers+text",
                text=[f"{value:g}" for value in values.values()],
                textposition="top center",
                cliponaxis=False,
                marker={"color": NEUTRAL[1], "size": 10, "symbol": "square"},
                hovertemplate="%{y}: %{x:g}<extra>the paper</extra>",
            )
        ],
        title="What the paper found",
        subtitle=escaped(source),
        showlegend=False,
        height=_height(len(values)),
        margin=MARGIN | {"t": TWO_LINES},
        xaxis={"title": {"text": escaped(measure)}, "nticks": 6},
        yaxis=_categories(labels),
    )


def tried_values(
    tried: Mapping[str, Sequence[tuple[float | str, float]]], chosen: Mapping[str, object], setting: str, label: str
) -> str:
    """What each value of a setting gave, one line for each arm; the chosen one is marked.

    Args:
        tried: (value, measure) in the order of the values, by arm.
        chosen: the value that was chosen, by arm.
    """
    traces = []
    for i, (name, points) in enumerate(tried.items()):
        colour = NEUTRAL[i % len(NEUTRAL)]
        traces.append(
            go.Scatter(
                x=[value for value, _ in points],
                y=[measure for _, measure in points],
                mode="lines+markers",
                name=short(name),
                line={"color": colour, "dash": ("solid", "dash", "dot")[i // len(NEUTRAL) % 3]},
                marker={
                    "symbol": HEAD_MARKS[i % len(HEAD_MARKS)],
                    "size": [14 if value == chosen.get(name) else 7 for value, _ in points],
                    "opacity": 1,
                    "line": {"width": 0},
                },
            )
        )
    values = list(dict.fromkeys(value for points in tried.values() for value, _ in points))
    numbers = [value for value in values if isinstance(value, int | float)]
    axis = _axis(setting, numbers) if len(numbers) == len(values) else {"title": {"text": escaped(setting)}}
    ticks = {"tickmode": "array", "tickvals": values, "ticktext": [_written(value) for value in values]}
    return figure_json(
        traces,
        title=escaped(f"Choosing the {setting}"),
        subtitle="the large mark is the value that each arm was run with",
        height=380,
        margin=MARGIN | {"t": TWO_LINES, "b": 120},
        xaxis=axis | ticks,
        yaxis={"title": {"text": escaped(label)}, "nticks": 6},
    )


def _written(value: float | str) -> str:
    return escaped(value) if isinstance(value, str) else f"{value:g}"


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Short labels by name; where several would be the same, whole names."""
    labels = [short(name) for name in names]
    return {
        name: label if labels.count(label) == 1 else escaped(name) for name, label in zip(names, labels, strict=True)
    }


def _errors(arms: Sequence[ArmMean], colour: str) -> dict[str, object]:
    """The intervals as Plotly's error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "arrayminus": [0 if arm.low is None else arm.mean - arm.low for arm in arms],
        "array": [0 if arm.high is None else arm.high - arm.mean for arm in arms],
        "color": colour,
        "thickness": 1.5,
        "width": 5,
    }


def _axis(title: str, values: Sequence[float]) -> dict[str, object]:
    wide = bool(values) and min(values) > 0 and max(values) / min(values) >= RATIO
    return {"title": {"text": escaped(title)}} | ({"type": "log"} if wide else {})


def _categories(labels: Sequence[str]) -> dict[str, object]:
    """An axis with the first label at the top."""
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": list(reversed(labels)),
        "automargin": True,
    }


def _height(arms: int) -> int:
    return max(200, TWO_LINES + MARGIN["b"] + ROW * arms)
