"""The runs of a workspace, their queue, and the bin of deleted runs."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import Field, TypeAdapter, ValidationError

from hydralora.errors import RunError
from hydralora.files import UnreadableError, building_folder, patiently, read_json, write_json
from hydralora.recipe.settings import Recipe
from hydralora.runs.naming import first_name
from hydralora.runs.run import STATE, Label, Run
from hydralora.runs.state import VERSION, RunState

BIN_SECONDS = 24 * 3600
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")


def default_workspace() -> Path:
    """HYDRALORA_HOME, else the user's data folder."""
    return Path(os.environ.get("HYDRALORA_HOME") or platformdirs.user_data_path("hydralora"))


@dataclass(frozen=True)
class Queue:
    """The ids of the waiting runs, the next one first, and how many runs may be active at once."""

    waiting: list[str] = field(default_factory=list)
    slots: Annotated[int, Field(ge=1)] = 1
    version: int = VERSION


_QUEUE = TypeAdapter(Queue)


class RunStore:
    """The runs of a workspace."""

    def __init__(self, workspace: Path | str | None = None) -> None:
        self.workspace = Path(workspace or default_workspace()).expanduser().resolve()
        self.folder = self.workspace / "runs"
        self.base_scores = self.workspace / "base-scores"  # of base models on held-out rows, which runs share

    def create(self, recipe: Recipe, label: Label | None = None) -> Run:
        """A new run, queued, with its recipe on disk, and a label; by default a name of its own."""
        with self.place() as run:
            run.begin(recipe)
            run.write_label(label or Label(first_name(recipe, (other.label().name for other in self._folders()))))
        return self.get(run.id)

    @contextmanager
    def place(self) -> Iterator[Run]:
        """Yield a new run to fill; after the block it is moved among the others under the same id.

        An error removes it.
        """
        run_id = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        with building_folder(self.folder, run_id) as building:
            yield Run(building)
            os.replace(building, self.folder / run_id)

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe, with the adapter's folder in place of a run's id in `start_from`.

        Raises:
            RunError: there is no such run, it has no adapter, or has another base model.
        """
        if not recipe.start_from or not RUN_ID.fullmatch(recipe.start_from):
            return recipe
        run = self.get(recipe.start_from)
        if not run.has_adapter:
            raise RunError(f"start_from: run {run.id} has no adapter yet. Wait until it ends, or choose another one.")
        if run.recipe().model != recipe.model:
            raise RunError(f"start_from: run {run.id} has another base model, {run.recipe().model}. Set it as model.")
        return recipe.model_copy(update={"start_from": str(run.adapter)})

    def get(self, run: str) -> Run:
        """The run with this id, or in this folder.

        Raises:
            RunError: there is none.
        """
        try:
            folder = self.folder / run if RUN_ID.fullmatch(run) else Path(run).expanduser().resolve()
            exists = (folder / STATE).exists()
        except (OSError, RuntimeError, ValueError):  # not a possible path: too long, a null byte, an unknown home
            exists = False
        if not exists:
            raise RunError(f"There is no run {run!r} in {self.folder}. Choose one that exists.")
        return Run(folder)

    def all(self) -> list[Run]:
        """Every run whose state can be read, newest first."""
        return list(self.states())

    def states(self) -> dict[Run, RunState]:
        """Every run whose state can be read, newest first, with its state as it is stored."""
        return {run: state for run, state in self._read() if isinstance(state, RunState)}

    def damaged(self) -> dict[Run, str]:
        """The runs whose state can't be read, newest first, and why."""
        return {run: str(state) for run, state in self._read() if isinstance(state, RunError)}

    def _read(self) -> Iterator[tuple[Run, RunState | RunError]]:
        for run in self._folders():
            try:
                yield run, run.state()
            except RunError as error:
                yield run, error

    def queue(self) -> "Queue":
        """The queue; empty if it was never written."""
        try:
            return _QUEUE.validate_python(patiently(lambda: read_json(self._queue_file)))
        except (UnreadableError, ValidationError):
            return Queue()

    def write_queue(self, queue: "Queue") -> None:
        write_json(self._queue_file, asdict(queue))

    @property
    def _queue_file(self) -> Path:
        return self.folder / "queue.json"

    def _folders(self) -> list[Run]:
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        place = str(self.folder)
        whole = (  # else a deletion was interrupted
            name for name in names if RUN_ID.fullmatch(name) and os.path.exists(f"{place}{os.sep}{name}{os.sep}{STATE}")
        )
        return [Run(self.folder / name) for name in sorted(whole, reverse=True)]

    def delete(self, run: Run) -> None:
        """Move a run to the bin; `restore` restores it for a day (`empty_bin`).

        Raises:
            RunError: it ships with the program.
        """
        run.refuse_if_shipped("deleted")
        self._bin.mkdir(parents=True, exist_ok=True)
        os.replace(run.folder, self._bin / run.id)

    def deleted(self) -> list[str]:
        """The ids of the runs that can be restored, the last deleted first."""
        folders = [folder for folder in self._bin.glob("*") if RUN_ID.fullmatch(folder.name)]
        return [folder.name for folder in sorted(folders, key=lambda folder: folder.stat().st_ctime, reverse=True)]

    def restore(self, run_id: str) -> Run:
        """Restore a deleted run.

        Raises:
            RunError: it is not among the deleted ones.
        """
        if run_id not in self.deleted():
            raise RunError(f"Run {run_id} is not among the deleted runs, so it can't be restored.")
        os.replace(self._bin / run_id, self.folder / run_id)
        return self.get(run_id)

    def empty_bin(self) -> None:
        """Delete permanently the runs that were deleted more than a day ago."""
        for run_id in self.deleted():
            folder = self._bin / run_id
            if time.time() - folder.stat().st_ctime > BIN_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _bin(self) -> Path:
        return self.folder / ".deleted"
