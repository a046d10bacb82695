"""Studies that are run: their folder, the runs of their cells, and which of them are still to come."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from hydralora.errors import ConfigError, HydraError
from hydralora.experiments.studies import study_label, study_of
from hydralora.experiments.studies.cells import Cell, Plan, Settings, recipe_key
from hydralora.experiments.studies.measures import MEASURES
from hydralora.experiments.studies.study import Study
from hydralora.files import write_text
from hydralora.recipe.reading import read_recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.records import Record
from hydralora.runs.run import RECIPE, Run
from hydralora.runs.state import ACTIVE, RESUMABLE, RunState
from hydralora.runs.store import RunStore

FILE = "study.json"
LOOK = 2.0  # seconds between looks at the runs

CellState = Literal["missing", "waiting", "running", "finished", "failed", "stopped"]


class StudyFile(Record):
    """What a study's folder says: the study as it was declared then, and the settings."""

    version: Literal[1] = 1
    name: str
    study: Study
    settings: Settings


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        phase: choosing a setting for each arm, or reporting.
        cells: the number of the phase's cells by state.
        failed: each failed cell's name, and why.
    """

    phase: Literal["choosing", "reporting"]
    cells: dict[CellState, int]
    failed: dict[str, str]

    @property
    def total(self) -> int:
        return sum(self.cells.values())

    @property
    def ended(self) -> bool:
        return self.phase == "reporting" and set(self.cells) <= {"finished", "failed"}


class RunningStudy:
    """A study in a workspace. Its cells are found among the workspace's runs by their recipes, so nothing else need be
    kept: a process killed at any time leaves nothing that is wrong."""

    def __init__(self, jobs: JobManager, folder: Path) -> None:
        """
        Raises:
            ConfigError: there is no study in the folder, or its file is damaged.
        """
        self.jobs, self.folder = jobs, folder
        try:
            self.file = StudyFile.model_validate_json((folder / FILE).read_bytes())
        except FileNotFoundError:
            raise ConfigError(f"There is no study {folder.name!r}. `hydralora study status` lists them.") from None
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"{folder / FILE} can't be read ({reason}). Delete the folder.") from error
        self._keys: dict[str, str | None] = {}  # of runs by id, so that each file is read once
        self._reported: tuple[dict[tuple[str, str], object], list[Cell]] | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    @cached_property
    def plan(self) -> Plan:
        return Plan(self.file.study, self.file.settings, self.folder / "rows")

    @cached_property
    def tuning(self) -> list[Cell]:
        """The cells by which a setting is chosen for each arm."""
        return self.plan.tuning()

    def runs(self, cells: Iterable[Cell]) -> list[tuple[Cell, Run | None]]:
        """Each cell with its run, the newest if there are several; None for one that has none yet.

        What another study of the workspace has finished serves here too: it is the same run.
        """
        cells = list(cells)
        wanted = {cell.key for cell in cells}
        own: dict[str, Run] = {}
        finished: dict[str, Run] = {}
        for run in self.jobs.store.all():  # the newest first
            study = study_of(run.label())
            if study is None or (key := self._key(run)) is None or key not in wanted:
                continue
            if study == self.id:
                own.setdefault(key, run)
            elif key not in finished and run.state().state == "finished":
                finished[key] = run
        return [(cell, own.get(cell.key) or finished.get(cell.key)) for cell in cells]

    def _key(self, run: Run) -> str | None:
        """By which a run is found; None for one whose recipe or rows can't be read, which counts as missing."""
        if run.id not in self._keys:
            try:
                # As it was written: `run.recipe()` follows links, such as one to a shared folder of models.
                self._keys[run.id] = recipe_key(read_recipe(run.folder / RECIPE))
            except (HydraError, OSError):
                self._keys[run.id] = None
        return self._keys[run.id]

    def chosen(self) -> dict[tuple[str, str], object]:
        """By arm and point, the value with the best measurement of those that were tried; none where all failed."""
        return self._best(self.runs(self.tuning))

    def _best(self, tried: Iterable[tuple[Cell, Run | None]]) -> dict[tuple[str, str], object]:
        judged = MEASURES[self.file.study.judged]
        best: dict[tuple[str, str], tuple[float, object]] = {}
        for cell, run in tried:
            results = run.state().results if run else None
            value = judged.of(results) if results else None
            if value is None:
                continue
            rank = value if judged.better == "less" else -value
            if cell.place not in best or rank < best[cell.place][0]:
                best[cell.place] = rank, cell.tried
        return {place: value for place, (_, value) in best.items()}

    def cells(self) -> tuple[Literal["choosing", "reporting"], list[tuple[Cell, Run | None]]]:
        """The phase, and its cells with their runs."""
        tried = self.runs(self.tuning)
        if any(self.state_of(run)[0] not in ("finished", "failed") for _, run in tried):
            return "choosing", tried
        chosen = self._best(tried)
        if self._reported is None or self._reported[0] != chosen:
            self._reported = chosen, self.plan.reported(chosen)
        return "reporting", self.runs(self._reported[1])

    def state_of(self, run: Run | None) -> tuple[CellState, RunState | None]:
        """How far a cell is, by its run."""
        if run is None:
            return "missing", None
        state = self.jobs.refresh(run)
        if state.state in ACTIVE:
            return ("waiting" if self.jobs.is_waiting(run) else "running"), state
        if state.state in ("finished", "failed"):
            return ("finished" if state.state == "finished" else "failed"), state
        return "stopped", state

    def status(self) -> Status:
        """How far it is; nothing is started."""
        phase, cells = self.cells()
        states = [(cell, *self.state_of(run)) for cell, run in cells]
        failed = {cell.name: run.message for cell, state, run in states if state == "failed" and run}
        return Status(phase, dict(Counter(state for _, state, _ in states)), failed)

    def advance(self, resume: bool = True) -> Status:
        """Queue what is missing; `resume` also what was stopped or interrupted."""
        missing = []
        for cell, run in self.cells()[1]:
            state, known = self.state_of(run)
            if run is None:
                label = study_label(self.id, f"{self.file.name}: {cell.name}", self.file.study.title)
                missing.append((cell.recipe, label))
            elif resume and state == "stopped" and known and known.state in RESUMABLE:
                self.jobs.resume(run)
        if missing:
            self.jobs.start_all(missing)
        self.jobs.advance()
        return self.status()

    def follow(self, on_status: Callable[[Status], None], poll: float = LOOK) -> Status:
        """Run it to its end; calls `on_status` with each change.

        A run that somebody stops is left alone from then on, and so is the study once nothing else is to be done.
        """
        status = self.advance()
        on_status(status)
        while not status.ended:
            time.sleep(poll)
            self.jobs.advance()
            now = self.status()
            if now.phase != status.phase or "missing" in now.cells:
                now = self.advance(resume=False)
            if now != status:
                on_status(now)
            status = now
            if set(status.cells) <= {"finished", "failed", "stopped"} and "stopped" in status.cells:
                break
        return status

    def stop(self) -> int:
        """Stop the runs that are under way or wait; returns their number."""
        _, cells = self.cells()
        going = [run for _, run in cells if run and self.state_of(run)[0] in ("waiting", "running")]
        for run in reversed(going):  # the last first: otherwise the queue would start another one
            self.jobs.stop(run)
        return len(going)


def studies_folder(store: RunStore) -> Path:
    return store.workspace / "studies"


def begin_study(jobs: JobManager, name: str, study: Study, settings: Settings) -> RunningStudy:
    """A study with these settings; the one that was begun with the same, if there is one.

    Raises:
        HydraError: a setting is wrong, or the data can't be used.
    """
    file = StudyFile(name=name, study=study, settings=settings)
    folder = folder_of(jobs.store, file)
    if not (folder / FILE).exists():
        Plan(study, settings, folder / "rows")  # its errors come before the folder
        write_study(folder, file)
    return RunningStudy(jobs, folder)


def folder_of(store: RunStore, file: StudyFile) -> Path:
    """The folder of a study: equal for the same study with the same settings."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in file.name.lower())[:40]
    digest = hashlib.sha256(file.model_dump_json().encode()).hexdigest()
    return studies_folder(store) / f"{slug}-{digest[:8]}"


def write_study(folder: Path, file: StudyFile) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, file.model_dump_json())


def all_studies(jobs: JobManager) -> list[RunningStudy]:
    """The workspace's studies, the newest first; damaged ones are left out."""
    files = sorted(studies_folder(jobs.store).glob(f"*/{FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    studies = []
    for file in files:
        try:
            studies.append(RunningStudy(jobs, file.parent))
        except ConfigError:
            continue
    return studies
