"""What a study found: a table, each arm compared with the reference, and a verdict in a sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import Field, JsonValue

from hydralora.experiments.studies.cells import Cell
from hydralora.experiments.studies.means import GroupMeans, Mean, group_means, mean_of
from hydralora.experiments.studies.measures import MEASURES
from hydralora.experiments.studies.running import RunningStudy
from hydralora.experiments.studies.statistics import (
    Difference,
    Paired,
    difference,
    difference_of_values,
    holm,
    paired_rows,
)
from hydralora.experiments.studies.study import BASE, Study
from hydralora.runs.records import Record
from hydralora.runs.results import RunResults
from hydralora.runs.run import Run
from hydralora.runs.scores import RowScores


class Compared(Record):
    """An arm less the reference: mean, 95 % interval, p, and p corrected for the number of arms (Holm)."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None
    verdict: str


class Line(Record):
    """An arm at a point of the axes.

    Attributes:
        groups: by task and component; components that seeds find under other names count as others.
        axes: the values of the axes; `point`, in words.
        chosen: the value of the setting that was chosen for it.
        paper: what the paper found.
        versus: the arm that it is compared with; None for that arm itself.
    """

    arm: str
    axes: dict[str, JsonValue]
    point: str
    chosen: float | str | None = None
    measures: dict[str, Mean]
    groups: list[GroupMeans] = Field(default_factory=list)
    versus: str | None
    difference: Compared | None
    paper: float | None = None


class TriedValue(Record):
    """A value that was tried for an arm, with the judged measure; None where its run failed."""

    arm: str
    point: str
    value: float | str
    measure: float | None


class CellReport(Record):
    """A run of the study."""

    arm: str
    axes: dict[str, JsonValue]
    seed: int
    run: str
    state: str
    measures: dict[str, float]


class Report(Record):
    """A study's findings so far.

    Attributes:
        setting: the one that was chosen for each arm; None where none was.
        ended: whether nothing is to be run any more.
    """

    version: int = 1
    study: str
    title: str
    question: str
    reference: str
    judged: str
    setting: str | None
    ended: bool
    settings: dict[str, object]
    cells: list[CellReport]
    tried: list[TriedValue]
    table: list[Line]
    failed: dict[str, str]
    verdict: str


@dataclass(frozen=True)
class _Done:
    """A finished run of a cell."""

    cell: Cell
    run: Run
    results: RunResults


def report(study: RunningStudy) -> Report:
    """The findings so far.

    Raises:
        HydraError: the data can't be used any more, or a run's file is damaged.
    """
    declared, judged = study.file.study, study.file.study.judged
    status, (phase, cells) = study.status(), study.cells()
    done: dict[tuple[str, str], dict[int, _Done]] = {}
    reports = []
    for cell, run in cells if phase == "reporting" else ():
        state = run.state() if run else None
        results = state.results if state else None
        if run and results and state and state.state == "finished":
            done.setdefault(cell.place, {})[cell.seed] = _Done(cell, run, results)
        if run and state:
            measures = _measures(results, declared.measures) if results else {}
            reports.append(
                CellReport(
                    arm=cell.arm, axes=cell.axes, seed=cell.seed, run=run.id, state=state.state, measures=measures
                )
            )
    chosen, lines = study.chosen(), []
    compared = {place: _against(done, place, declared.reference, judged) for place in done}
    adjusted = dict(zip(compared, holm([found.p if found else None for found in compared.values()]), strict=True))
    for place, runs in done.items():
        found = compared[place]
        lines.append(
            Line(
                arm=place[0],
                axes=next(iter(runs.values())).cell.axes,
                point=place[1],
                chosen=chosen.get(place),
                measures={name: mean for name in declared.measures if (mean := _mean(runs.values(), name))},
                groups=group_means(done.results for done in runs.values()),
                versus=None if place[0] == declared.reference else declared.reference,
                difference=_compared(found, adjusted[place], judged) if found else None,
                paper=declared.paper.values.get(place[0]) if declared.paper else None,
            )
        )
    lines += _base_lines(done, declared)
    return Report(
        study=study.id,
        title=declared.title,
        question=declared.question,
        reference=declared.reference,
        judged=judged,
        setting=declared.tune.setting if declared.tune else None,
        ended=status.ended,
        settings=study.file.settings.model_dump(mode="json"),
        cells=reports,
        tried=_tried(study, judged),
        table=lines,
        failed=_failed_choices(study) | status.failed,
        verdict=_verdict(lines, declared.reference, judged, status.ended),
    )


def _base_lines(done: dict[tuple[str, str], dict[int, _Done]], declared: Study) -> list[Line]:
    """The base model's line at each point: every run measures it before it trains."""
    by_point: dict[str, dict[int, _Done]] = {}
    for (_, point), runs in done.items():
        by_point[point] = runs | by_point.get(point, {})
    lines = []
    for point, runs in by_point.items():
        before = [replace(each, results=_of_base(each.results)) for each in runs.values()]
        measures = {name: mean for name in declared.measures if (mean := _mean(before, name))}
        paper = declared.paper.values.get(BASE) if declared.paper else None
        axes = next(iter(runs.values())).cell.axes
        lines.append(
            Line(
                arm=BASE,
                axes=axes,
                point=point,
                measures=measures,
                groups=group_means(done.results for done in before),
                versus=declared.reference,
                difference=None,
                paper=paper,
            )
        )
    return lines


def _of_base(results: RunResults) -> RunResults:
    """The base model's measurements as if they were a run's."""
    benchmarks = {name: scores.changed(tuned=scores.base) for name, scores in results.benchmarks.items()}
    return RunResults(tuned=results.base, components=results.components, benchmarks=benchmarks)


def _measures(results: RunResults, names: Sequence[str]) -> dict[str, float]:
    return {name: value for name in names if (value := MEASURES[name].of(results)) is not None}


def _mean(runs: Iterable[_Done], name: str) -> Mean | None:
    return mean_of([value for done in runs if (value := MEASURES[name].of(done.results)) is not None])


def _against(
    done: dict[tuple[str, str], dict[int, _Done]], place: tuple[str, str], reference: str, measure: str
) -> Difference | None:
    """The arm less the reference at the same point, over the seeds that both have finished."""
    arm, point = place
    others = done.get((reference, point), {})
    seeds = sorted(set(done[place]) & set(others))
    if arm == reference or not seeds:
        return None
    pairs = [pair for seed in seeds if (pair := _paired(done[place][seed].run, others[seed].run, measure))]
    if len(pairs) == len(seeds):
        return difference(pairs)
    of = MEASURES[measure].of
    values = [(of(done[place][seed].results), of(others[seed].results)) for seed in seeds]
    known = [(one, other) for one, other in values if one is not None and other is not None]
    return difference_of_values(*map(list, zip(*known, strict=True))) if known else None


def _paired(one: Run, other: Run, measure: str) -> Paired | None:
    scores = [RowScores.read(run.row_scores, "after") for run in (one, other)]
    return paired_rows(scores[0], scores[1], measure) if scores[0] and scores[1] else None


def _compared(found: Difference, adjusted: float | None, measure: str) -> Compared:
    if not found.apart(adjusted):
        verdict = "can't tell"
    else:
        verdict = "better" if (found.mean < 0) == (MEASURES[measure].better == "less") else "worse"
    return Compared(mean=found.mean, low=found.low, high=found.high, p=found.p, adjusted=adjusted, verdict=verdict)


def _tried(study: RunningStudy, judged: str) -> list[TriedValue]:
    tried = []
    for cell, run in study.runs(study.tuning):
        results = run.state().results if run else None
        if cell.tried is not None:
            measure = MEASURES[judged].of(results) if results else None
            tried.append(TriedValue(arm=cell.arm, point=cell.point, value=cell.tried, measure=measure))
    return tried


def _failed_choices(study: RunningStudy) -> dict[str, str]:
    """Why values could not be tried: an arm for which all failed is in no table."""
    states = [(cell, run.state()) for cell, run in study.runs(study.tuning) if run]
    return {cell.name: state.message for cell, state in states if state.state == "failed"}


def _verdict(lines: Sequence[Line], reference: str, measure: str, ended: bool) -> str:
    """In a sentence, with the interval of the arm that is furthest ahead of the reference."""
    compared = [line for line in lines if line.difference]
    if not compared:
        return "Nothing can be compared yet." if not ended else "No arm finished beside the reference."
    so_far = "" if ended else "So far: "
    sign = 1 if MEASURES[measure].better == "less" else -1
    clear = [line for line in compared if line.difference and line.difference.verdict != "can't tell"]
    label = MEASURES[measure].label
    line = min(clear or compared, key=lambda line: sign * (line.difference.mean if line.difference else 0))
    found = line.difference
    assert found
    at = f" at {line.point}" if line.point else ""
    interval = f"{found.mean:+.3f}"
    if found.low is not None and found.high is not None:
        interval += f", 95 % interval {found.low:+.3f} to {found.high:+.3f}"
    if not clear:
        untested = "" if found.p is not None else ", too few seeds for a test"
        place = "the furthest ahead" if sign * found.mean < 0 else "the nearest behind it"
        return (
            f"{so_far}No arm's {label} can be told apart from that of {reference}; {line.arm}{at} is {place} "
            f"({interval}{untested})."
        )
    counts = {
        word: sum(1 for other in clear if other.difference and other.difference.verdict == word)
        for word in ("better", "worse")
    }
    return (
        f"{so_far}{line.arm}{at} is {found.verdict} than {reference} ({label} {interval}). Of {len(compared)} arms "
        f"compared, {counts['better']} are better, {counts['worse']} worse, and of "
        f"{len(compared) - len(clear)} one can't tell."
    )
