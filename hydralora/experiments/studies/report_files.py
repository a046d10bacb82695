"""A study's report as files: one page that needs no network, and a table for other programs."""

import csv
import io
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import get_args

from hydralora.data.progress import describe_duration
from hydralora.errors import ConfigError
from hydralora.experiments.studies.means import GroupKind, Mean
from hydralora.experiments.studies.measures import MEASURES
from hydralora.experiments.studies.report import CellReport, Line, Report, report
from hydralora.experiments.studies.report_figures import measured_figure, paper_figure, tried_figure
from hydralora.experiments.studies.report_tables import group_rows, table_rows
from hydralora.experiments.studies.running import RunningStudy
from hydralora.experiments.studies.shipped import ShippedStudy
from hydralora.experiments.studies.study import Study
from hydralora.figures import ReportSection, write_report
from hydralora.files import csv_cell, write_text
from hydralora.models.device import describe_device

PACKAGES = ("hydralora-studio", "torch", "transformers", "peft")
GROUP_KINDS: tuple[GroupKind, ...] = get_args(GroupKind)
SUMMARY = ("chosen", "versus", "difference", "low", "high", "p", "p_corrected", "verdict", "paper")
HOW_TO_READ = (
    "Each dot is one seed. A bar is the 95 % interval of an arm's mean over its seeds. Arms are paired by seed, so a "
    "difference can be clear although two bars overlap: the table and the verdict go by the paired difference."
)


def write_html(path: Path, study: RunningStudy, found: Report | None = None) -> None:
    """Write the findings so far as one page.

    Args:
        found: the study's report, if it is known.

    Raises:
        ConfigError: the file can't be written.
        HydraError: as `report`.
    """
    found = found or report(study)
    _write_page(path, study.file.study, found, _made(study, found))


def write_shipped(path: Path, study: ShippedStudy) -> None:
    """Write a finished study that ships as the same page.

    Raises:
        ConfigError: the file can't be written.
    """
    made = [("Made by", study.command), ("Machine", study.machine), ("Seeds", str(study.file.settings.seeds))]
    _write_page(path, study.file.study, study.report, [*made, ("Base model", _model(study.file.settings.model))])


def _write_page(path: Path, declared: Study, found: Report, made: Sequence[tuple[str, str]]) -> None:
    sections = [ReportSection(lead=found.verdict, texts=(found.question,))]
    if found.table:
        heads, *rows = table_rows(found)
        sections.append(ReportSection("The arms", table=(tuple(heads), *map(tuple, rows))))
    for kind in GROUP_KINDS:
        if rows := group_rows(found, kind):
            sections.append(ReportSection(f"By {kind}: loss / exact match", table=tuple(map(tuple, rows))))
    if drawn := measured_figure(found, declared):
        sections.append(ReportSection(figure=drawn, caption=HOW_TO_READ))
    if declared.paper:
        differs = f"The paper reports {declared.paper.measure}, which is not our measure. {declared.paper.differs}"
        sections.append(ReportSection(figure=paper_figure(declared.paper), caption=differs))
    if curves := tried_figure(found):
        seed = "Each value was tried on one seed, on rows that are neither trained on nor reported."
        sections.append(ReportSection(figure=curves, caption=seed))
    if found.failed:
        rows = [list(pair) for pair in found.failed.items()]
        sections.append(ReportSection("What failed", table=(("run", "why"), *map(tuple, rows))))
    sections.append(ReportSection("How it was made", table=(("", ""), *made)))
    write_report(path, found.title, sections)


def write_csv(path: Path, found: Report) -> None:
    """Write a line for each reported run, one for each arm's summary, and one for each of its tasks and components.

    Raises:
        ConfigError: the file can't be written.
    """
    lines: list[CellReport | Line] = [*found.cells, *found.table]
    of_groups = [group.measures for line in found.table for group in line.groups]
    measures = list(dict.fromkeys(name for each in [*(line.measures for line in lines), *of_groups] for name in each))
    axes = list(dict.fromkeys(key for line in lines for key in line.axes))
    own = ["kind", "arm", "group", *axes, "seed", "state", "run", *measures]
    of_summary = [*(f"{name}_sd" for name in measures), "seeds", *SUMMARY]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*own, *of_summary], restval="")
    writer.writerow({name: csv_cell(name) for name in writer.fieldnames})
    groups = [row for line in found.table for row in _group_rows(line)]
    for row in [*map(_run_row, found.cells), *map(_summary_row, found.table), *groups]:
        writer.writerow({name: csv_cell(value) for name, value in row.items()})
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise ConfigError(f"{path}: can't be written ({error.strerror or error}). Give another file.") from error


def _run_row(cell: CellReport) -> dict[str, object]:
    own = {"kind": "run", "arm": cell.arm, "seed": cell.seed, "state": cell.state, "run": cell.run}
    return {**own, **cell.axes, **cell.measures}


def _group_rows(line: Line) -> Iterator[dict[str, object]]:
    for group in line.groups:
        yield {"kind": group.kind, "arm": line.arm, "group": group.name, **line.axes, **_means(group.measures)}


def _means(measures: dict[str, Mean]) -> dict[str, object]:
    """The means and deviations by their columns, and the number of seeds."""
    means = {name: mean.mean for name, mean in measures.items()}
    spreads = {f"{name}_sd": mean.sd for name, mean in measures.items()}
    return {**means, **spreads, "seeds": max((mean.n for mean in measures.values()), default=0)}


def _summary_row(line: Line) -> dict[str, object]:
    found = line.difference
    compared = (found.mean, found.low, found.high, found.p, found.adjusted, found.verdict) if found else (None,) * 6
    summary = dict(zip(SUMMARY, (line.chosen, line.versus, *compared, line.paper), strict=True))
    return {"kind": "summary", "arm": line.arm, **line.axes, **_means(line.measures), **summary}


def _made(study: RunningStudy, found: Report) -> list[tuple[str, str]]:
    """How the report was made, by what it is about; files are named without their folders."""
    settings, states = study.file.settings, [study.jobs.store.get(cell.run).state() for cell in found.cells]
    results = [state.results for state in states if state.results]
    base = next((each.base_model for each in results if each.base_model), None)
    taken = sum(each.total_seconds or 0 for each in results)
    energy = sum((each.energy_kwh or {}).get("total", 0) for each in results)
    steps = sorted({each.step for each in results})
    counts = next((each.rows for each in results if each.rows), None)
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    model = f"{_model(base.id)} ({base.source}), weights {base.hash[:16]}" if base else _model(settings.model)
    rows = [
        ("Base model", model),
        ("Data", Path(settings.data).name + (f", held out: {Path(settings.heldout).name}" if settings.heldout else "")),
        ("Rows of a run", f"{counts.train:,} trained on, {counts.heldout:,} reported" if counts else ""),
        ("Seeds", str(settings.seeds)),
        ("Steps of a run", ", ".join(map(str, steps))),
        ("Further settings", ", ".join(f"{key}={value}" for key, value in settings.recipe.items())),
        ("Reported runs", f"{len(results)}, {describe_duration(taken)} in all" if results else "none yet"),
        ("Energy", f"{energy:.3g} kWh" if energy else ""),
        ("This machine", describe_device().name),
        ("Versions", ", ".join(versions)),
        ("Measures", ", ".join(MEASURES[name].label for name in study.file.study.measures)),
        ("Study", found.study),
    ]
    return [(name, text) for name, text in rows if text]


def _model(model: str) -> str:
    """A model's id, or its folder's name: no path of this machine is in a report."""
    return Path(model).name if Path(model).is_absolute() else model
