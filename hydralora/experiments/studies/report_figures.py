"""A study's figures: its arms beside one another or along an axis, the paper's numbers, and the values tried."""

from collections.abc import Sequence

from hydralora import figures
from hydralora.experiments.studies.measures import MEASURES
from hydralora.experiments.studies.report import CellReport, Line, Report
from hydralora.experiments.studies.statistics import interval_of_mean
from hydralora.experiments.studies.study import BASE, Paper, Study
from hydralora.figures import ArmMean

HEADS = "tuner.num_heads"
BESIDE_HEADS = {HEADS, "tuner.router_init"}  # one head needs no router, whatever starts it
FEWEST_ON_A_LINE = 3


def measured_figure(found: Report, study: Study) -> str:
    """The judged measure of each arm; "" before anything is measured.

    Arms are lines where the study has an axis of numbers, or where they differ in the number of heads; else each arm is
    a row of its own. The base model is so far from all of them that its row would hide how they differ.
    """
    lines = [line for line in found.table if found.judged in line.measures and line.arm != BASE]
    label = MEASURES[found.judged].label
    if not lines:
        return ""
    if axis := _axis_of_numbers(study):
        series: dict[str, list[ArmMean]] = {}
        for line in lines:
            others = ", ".join(f"{_short(key)} {value}" for key, value in line.axes.items() if key != axis)
            name = ", ".join(filter(None, (line.arm, others)))
            series.setdefault(name, []).append(_mean(found, line, name, line.axes[axis]))
        ordered = {name: sorted(arms, key=lambda arm: arm.x or 0) for name, arms in series.items()}
        return figures.arm_lines(ordered, _short(axis), label)
    heads = {} if study.axes else _heads(study)
    along = sorted((line for line in lines if line.arm in heads), key=lambda line: heads[line.arm])
    if len(along) >= FEWEST_ON_A_LINE:
        level = next((_mean(found, line, line.arm) for line in lines if line.arm == study.reference), None)
        arms = [_mean(found, line, line.arm, heads[line.arm]) for line in along]
        return figures.arm_lines({"by the number of heads": arms}, "number of heads", label, level)
    rows = [_mean(found, line, ", ".join(filter(None, (line.arm, line.point)))) for line in lines]
    return figures.arm_means(rows, label, study.reference)


def paper_figure(paper: Paper) -> str:
    """The paper's numbers, in their own measure."""
    return figures.paper_values(paper.values, paper.measure, paper.source)


def tried_figure(found: Report) -> str:
    """What each value gave of the setting that was chosen for each arm; "" where none was."""
    tried: dict[str, list[tuple[float | str, float]]] = {}
    for each in found.tried:
        if each.measure is not None:
            name = ", ".join(filter(None, (each.arm, each.point)))
            tried.setdefault(name, []).append((each.value, each.measure))
    if not tried or not found.setting:
        return ""
    chosen: dict[str, object] = {", ".join(filter(None, (line.arm, line.point))): line.chosen for line in found.table}
    return figures.tried_values(tried, chosen, _short(found.setting), MEASURES[found.judged].label)


def _axis_of_numbers(study: Study) -> str | None:
    numeric = (key for key, values in study.axes.items() if len(values) > 1 and all(map(_is_number, values)))
    return next(numeric, None)


def _heads(study: Study) -> dict[str, float]:
    """The number of heads by arm, where arms differ in it and in nothing else; none otherwise."""
    settings = {name: arm.settings for name, arm in study.arms.items() if _is_number(arm.settings.get(HEADS))}
    rest = [{key: value for key, value in each.items() if key not in BESIDE_HEADS} for each in settings.values()]
    alike = all(each == rest[0] for each in rest)
    return {name: _number(each[HEADS]) or 0 for name, each in settings.items()} if alike else {}


def _mean(found: Report, line: Line, name: str, x: object = None) -> ArmMean:
    known = line.measures[found.judged]
    low, high = interval_of_mean(known.mean, known.sd, known.n) or (None, None)
    return ArmMean(name, known.mean, _seeds(found.cells, line, found.judged), low, high, _number(x))


def _seeds(cells: Sequence[CellReport], line: Line, measure: str) -> tuple[float, ...]:
    own = [cell for cell in cells if (cell.arm, cell.axes) == (line.arm, line.axes) and cell.state == "finished"]
    return tuple(cell.measures[measure] for cell in own if measure in cell.measures)


def _is_number(value: object) -> bool:
    return _number(value) is not None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _short(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")
