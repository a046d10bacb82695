"""A study that was begun: how far it is, what it has found, and its report as files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from hydralora.data.progress import describe_duration
from hydralora.experiments.studies.report import Report, report
from hydralora.experiments.studies.report_figures import measured_figure, paper_figure, tried_figure
from hydralora.experiments.studies.report_files import write_csv, write_html, write_shipped
from hydralora.experiments.studies.report_tables import table_rows
from hydralora.experiments.studies.running import RunningStudy
from hydralora.experiments.studies.shipped import ShippedStudy, shipped_studies
from hydralora.experiments.studies.study import Study

from ...services import Services
from ...services.studies import GOING, CellNow, StudyNow
from ..reading import counted
from ..train.tab import Bar

PREPARING = "Reading the rows and planning the runs …"
MOST_FAILURES = 5  # that are written out


class Dot(TypedDict):
    """A cell as a dot: its name, its state in a word, and its run, "" for none yet."""

    name: str
    state: str
    run: str


class TableRow(TypedDict):
    """An arm's line: its cells as dots, and what was measured, a text for each column."""

    arm: str
    tried: list[Dot]
    seeds: list[Dot]
    cells: list[str]


class Table(TypedDict):
    """The table of a study; `columns` are those of the cells."""

    columns: list[str]
    tuned: bool
    rows: list[TableRow]


@dataclass(frozen=True)
class Words:
    """What changes while a study runs."""

    status: str = ""
    verdict: str = ""
    failed: str = ""
    bar: Bar | None = None
    table: Table | None = None
    going: int = 0
    resumable: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Pictures:
    """The study's figures, "" for none; `differs` says how the paper's measure is another one."""

    measured: str = ""
    paper: str = ""
    differs: str = ""
    tried: str = ""


@dataclass(frozen=True)
class StudyView:
    """What the page shows of a study, in two parts that change apart."""

    id: str = ""
    title: str = ""
    question: str = ""
    words: Words = field(default_factory=Words)
    pictures: Pictures = field(default_factory=Pictures)

    @cached_property
    def marks(self) -> tuple[str, str]:
        """A hash of each part: only a part that changed is sent."""
        parts = ((self.id, self.title, self.words), (self.id, self.pictures))
        words, pictures = (hashlib.sha256(repr(part).encode()).hexdigest() for part in parts)
        return words, pictures


def view(services: Services, study_id: str) -> StudyView:
    """What to show of a study; an empty view for none.

    Raises:
        HydraError: there is no such study.
    """
    if not study_id:
        return StudyView()
    if shipped := shipped_studies().get(study_id):
        return _shipped_view(shipped)
    study, now = services.studies.get(study_id), services.studies.now(study_id)
    declared, problem = study.file.study, services.studies.problem(study_id)
    pictures = _pictures(declared, now.report if now else None)
    words = _words(services, study, now) if now else Words(problem or PREPARING, resumable=bool(problem))
    if now and problem:
        words = Words(problem, words.verdict, words.failed, None, words.table, words.going, True)
    return StudyView(study_id, declared.title, declared.question, words, pictures)


def _shipped_view(study: ShippedStudy) -> StudyView:
    """A finished study that ships: its runs stayed where they were made."""
    found, declared = study.report, study.file.study
    runs = counted(len(found.cells) + len(found.tried), "run")
    words = Words(
        status=f"Ships with the studio: {runs} on {study.machine}. The same here: {study.command}",
        verdict=found.verdict,
        failed=_failures(found.failed),
        table=_shipped_table(study),
        ended=True,
    )
    return StudyView(study.id, declared.title, declared.question, words, _pictures(declared, found))


def _pictures(declared: Study, found: Report | None) -> Pictures:
    paper = declared.paper
    return Pictures(
        measured=measured_figure(found, declared) if found else "",
        paper=paper_figure(paper) if paper else "",
        differs=f"The paper's measure is {paper.measure}, not ours. {paper.differs}" if paper else "",
        tried=tried_figure(found) if found else "",
    )


def stop(services: Services, study_id: str) -> None:
    """Stop all of a study's runs that wait or are under way.

    Raises:
        HydraError: there is no such study.
    """
    services.studies.stop(study_id)


def go_on(services: Services, study_id: str) -> None:
    """Go on with a study; what was stopped is resumed.

    Raises:
        HydraError: there is no such study.
    """
    services.studies.go_on(study_id)


def page_file(services: Services, study_id: str) -> Path:
    """The report so far as a page that needs no network.

    Raises:
        HydraError: there is no such study.
    """
    if shipped := shipped_studies().get(study_id):
        path = services.download(f"{shipped.id}.html", of=shipped.id)
        write_shipped(path, shipped)
        return path
    study, found = _found(services, study_id)
    path = services.download(f"{study_id}.html", of=study_id)
    write_html(path, study, found)
    return path


def table_file(services: Services, study_id: str) -> Path:
    """The report so far as CSV.

    Raises:
        HydraError: there is no such study.
    """
    shipped = shipped_studies().get(study_id)
    found = shipped.report if shipped else _found(services, study_id)[1]
    path = services.download(f"{study_id}.csv", of=study_id)
    write_csv(path, found)
    return path


def _found(services: Services, study_id: str) -> tuple[RunningStudy, Report]:
    """A study and its newest report; it is made here if no page has looked at the study yet."""
    study, look = services.studies.get(study_id), services.studies.last(study_id)
    return study, look.report if look else report(study)


def _words(services: Services, study: RunningStudy, now: StudyNow) -> Words:
    total = _total(study, now.cells)
    done = sum(cell.state in ("finished", "failed") for cell in now.cells)
    carried = services.studies.is_carried_on(study.id)
    phase = "Choosing each arm's setting" if now.status.phase == "choosing" else "Running the arms"
    if now.status.ended:
        failed = sum(cell.state == "failed" for cell in now.cells)
        status = f"Finished: {counted(done, 'run')}{f', of which {failed} failed' if failed else ''}."
    elif carried or now.going:
        status = f"{phase}: {done} of {counted(total, 'run')} done, {_states(now.cells)}."
    else:
        status = f"Stopped: {done} of {counted(total, 'run')} done. What has finished is kept."
    going = not now.status.ended and (carried or now.going > 0)
    return Words(
        status=status,
        verdict=now.report.verdict,
        failed=_failures(now.report.failed),
        bar=_bar(done, total, now) if going else None,
        table=_table(study, now),
        going=max(now.going, 1) if going else 0,
        resumable=not now.status.ended and not going,
        ended=now.status.ended,
    )


def _total(study: RunningStudy, cells: Sequence[CellNow]) -> int:
    """All cells of a study: those that are reported are known only once their settings are chosen."""
    tried = [cell for cell in cells if cell.cell.tried is not None]
    if len(tried) < len(cells) or not tried:
        return len(cells)
    return len(tried) + study.file.settings.seeds * len({cell.cell.place for cell in tried})


def _states(cells: Sequence[CellNow]) -> str:
    counts = {state: sum(cell.state == state for cell in cells) for state in GOING}
    return ", ".join(f"{count} {state}" for state, count in reversed(counts.items()) if count) or "starting the next"


def _bar(done: int, total: int, now: StudyNow) -> Bar:
    left = describe_duration(now.seconds * (total - done)) if now.seconds else ""
    return {
        "fraction": done / max(total, 1),
        "place": f"Phase {1 if now.status.phase == 'choosing' else 2} of 2" if now.report.setting else "",
        "share": f"{done} of {counted(total, 'run')}",
        "left": f"about {left} left" if left else "",
    }


def _failures(failed: dict[str, str]) -> str:
    texts = [f"{name}: {why}" for name, why in list(failed.items())[:MOST_FAILURES]]
    more = f" And {len(failed) - MOST_FAILURES} more." if len(failed) > MOST_FAILURES else ""
    return f"Failed: {' '.join(texts)}{more}" if texts else ""


def _table(study: RunningStudy, now: StudyNow) -> Table:
    """A line for each arm from the start on; what is measured of it comes later."""
    (_, *columns), *rows = table_rows(now.report)
    measured = {row[0]: row[1:] for row in rows}
    lines: dict[str, TableRow] = {}
    for each in now.cells:
        name = ", ".join(filter(None, each.cell.place))
        line = lines.setdefault(name, {"arm": name, "tried": [], "seeds": [], "cells": measured.get(name, [])})
        dot: Dot = {"name": each.cell.name, "state": each.state, "run": each.run}
        line["seeds" if each.cell.tried is None else "tried"].append(dot)
    for name, line in lines.items():
        if now.status.phase == "choosing":
            seeds = range(study.file.settings.seeds)
            line["seeds"] = [{"name": f"{name}, seed {seed}", "state": "missing", "run": ""} for seed in seeds]
    return {"columns": columns, "tuned": study.file.study.tune is not None, "rows": list(lines.values())}


def _shipped_table(study: ShippedStudy) -> Table:
    (_, *columns), *rows = table_rows(study.report)
    lines: list[TableRow] = []
    for name, *cells in rows:
        own = [cell for cell in study.report.cells if cell.arm == name]  # none that ships has axes
        seeds: list[Dot] = [{"name": f"{name}, seed {cell.seed}", "state": cell.state, "run": ""} for cell in own]
        lines.append({"arm": name, "tried": [], "seeds": seeds, "cells": cells})
    return {"columns": columns, "tuned": False, "rows": lines}
