"""The workspace's studies: carried on until they end, and looked at by any number of pages."""

import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from hydralora.errors import ConfigError, HydraError
from hydralora.experiments.studies.cells import Cell, Settings
from hydralora.experiments.studies.report import Report, report
from hydralora.experiments.studies.running import (
    LOOK,
    CellState,
    RunningStudy,
    Status,
    all_studies,
    begin_study,
    studies_folder,
)
from hydralora.experiments.studies.study import Study
from hydralora.runs.jobs import JobManager

STUDY_ID = re.compile(r"[\w-]{1,60}")
MARK = "carried-on"  # a file in the folder of a study that goes on by itself, also after the app was started again
WATCHED_SECONDS = 10.0  # after the last page's look
GOING = ("waiting", "running")


@dataclass(frozen=True)
class CellNow:
    """A cell with its run's id, "" for none yet."""

    cell: Cell
    run: str
    state: CellState


@dataclass(frozen=True)
class StudyNow:
    """A study as it was at the last look.

    Attributes:
        cells: those by which settings are chosen, then those that are reported, as soon as they are known.
        seconds: that a run took, in the mean; None before one has finished.
    """

    status: Status
    cells: tuple[CellNow, ...]
    report: Report
    seconds: float | None

    @property
    def going(self) -> int:
        """The number of cells that wait or run."""
        return sum(cell.state in GOING for cell in self.cells)


class Studies:
    """Planning a study may cluster its rows, so one thread plans and looks at all of them; pages read its last look."""

    def __init__(self, jobs: JobManager, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs, self._clock = jobs, clock
        self._open: dict[str, RunningStudy] = {}
        self._looks: dict[str, StudyNow] = {}
        self._watched: dict[str, float] = {}  # when a page last looked
        self._resume: set[str] = set()  # whose stopped runs are to be resumed
        self._problems: dict[str, str] = {}
        self._lock = threading.RLock()  # held while runs are started or stopped
        self._wake = threading.Event()

    def keep(self) -> None:
        """Look again and again, in a thread of its own."""

        def look() -> None:
            while True:
                try:
                    self.advance()
                except (OSError, HydraError) as error:  # such as a full disk; it may pass
                    print(f"The studies can't be carried on: {error}", file=sys.stderr)
                self._wake.wait(LOOK)
                self._wake.clear()

        threading.Thread(target=look, name="studies", daemon=True).start()

    def all(self) -> list[RunningStudy]:
        """The workspace's studies, the newest first."""
        return [self._open.setdefault(study.id, study) for study in all_studies(self._jobs)]

    def get(self, study_id: str) -> RunningStudy:
        """A study by its id.

        Raises:
            ConfigError: there is none.
        """
        folder = studies_folder(self._jobs.store) / str(study_id)
        if not STUDY_ID.fullmatch(str(study_id)) or not folder.is_dir():
            raise ConfigError("There is no such study in this workspace. Choose one from the list.")
        if study_id not in self._open:
            self._open[study_id] = RunningStudy(self._jobs, folder)
        return self._open[study_id]

    def now(self, study_id: str) -> StudyNow | None:
        """How far it was at the last look; None before the first one, which comes soon.

        Raises:
            ConfigError: there is none.
        """
        self.get(study_id)
        is_new = study_id not in self._watched
        self._watched[study_id] = self._clock()
        if is_new:
            self._wake.set()
        return self._looks.get(study_id)

    def last(self, study_id: str) -> StudyNow | None:
        """What the last look saw, if there was one; it causes no other."""
        return self._looks.get(study_id)

    def problem(self, study_id: str) -> str:
        """Why it does not go on; "" if nothing is in the way."""
        return self._problems.get(study_id, "")

    def begin(self, name: str, study: Study, settings: Settings) -> RunningStudy:
        """Begin a study, or go on with the one that has the same settings.

        Raises:
            HydraError: a setting is wrong.
        """
        running = begin_study(self._jobs, name, study, settings)
        self.go_on(running.id)
        return running

    def go_on(self, study_id: str) -> None:
        """Carry a study on until it ends or is stopped; what was stopped is resumed.

        Raises:
            ConfigError: there is none.
        """
        self.get(study_id)
        with self._lock:
            self._mark(study_id).touch()
            self._problems.pop(study_id, None)
            self._resume.add(study_id)
        self._wake.set()

    def stop(self, study_id: str) -> None:
        """Stop what waits and runs; nothing further is started.

        Raises:
            ConfigError: there is none.
        """
        study = self.get(study_id)
        with self._lock:
            self._mark(study_id).unlink(missing_ok=True)
            self._resume.discard(study_id)
            if study_id in self._looks:  # before the first look, nothing is started
                study.stop()
        self._wake.set()

    def is_carried_on(self, study_id: str) -> bool:
        return self._mark(study_id).exists()

    def advance(self) -> None:
        """Look at the studies that are carried on or watched, and start what is due."""
        since = self._clock() - WATCHED_SECONDS
        self._watched = {study_id: at for study_id, at in self._watched.items() if at >= since}
        carried = [file.parent.name for file in studies_folder(self._jobs.store).glob(f"*/{MARK}")]
        for study_id in dict.fromkeys([*carried, *self._watched]):
            try:
                self._advance(self.get(study_id))
                if study_id not in carried:
                    self._problems.pop(study_id, None)
            except Exception as error:  # of one study: the others go on
                told = str(error) if isinstance(error, HydraError) else f"{type(error).__name__}: {error}"
                self._problems[study_id] = told
                self._mark(study_id).unlink(missing_ok=True)

    def _advance(self, study: RunningStudy) -> None:
        status = study.status()  # plans it: the first time that takes a while
        with self._lock:
            if self.is_carried_on(study.id):
                resume = study.id in self._resume
                if resume or "missing" in status.cells:
                    self._resume.discard(study.id)
                    status = study.advance(resume)
                elif not set(status.cells) & {"waiting", "running"}:  # it has ended, or somebody has stopped its runs
                    self._mark(study.id).unlink(missing_ok=True)
        self._looks[study.id] = self._look(study, status)

    def _look(self, study: RunningStudy, status: Status) -> StudyNow:
        phase, found = study.cells()
        cells = [*(study.runs(study.tuning) if phase == "reporting" else ()), *found]
        states = tuple(CellNow(cell, run.id if run else "", study.state_of(run)[0]) for cell, run in cells)
        before = self._looks.get(study.id)
        if before and _ended(before.cells) == _ended(states) and before.status.phase == status.phase:
            return replace(before, status=status, cells=states)  # its report takes longer than a look
        results = [run.state().results for _, run in cells if run]
        taken = [each.total_seconds for each in results if each and each.total_seconds]
        return StudyNow(status, states, report(study), fmean(taken) if taken else None)

    def _mark(self, study_id: str) -> Path:
        return studies_folder(self._jobs.store) / study_id / MARK


def _ended(cells: tuple[CellNow, ...]) -> set[tuple[str, str]]:
    return {(cell.run, cell.state) for cell in cells if cell.state in ("finished", "failed")}
