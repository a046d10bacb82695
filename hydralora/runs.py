"""Run folders: the only code that knows their layout."""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from hydralora.checkpoints import saved_checkpoints
from hydralora.errors import RunError
from hydralora.files import ADAPTER_WEIGHTS, patiently, to_json, write_json, write_text
from hydralora.recipe import Recipe, load_recipe

VERSION = 1
BIN_SECONDS = 24 * 3600
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
ACTIVE = ("queued", "preparing", "training", "evaluating", "stopping")
LEAVING = 5.0  # seconds in which a worker that has ended may still hold its lock
MEASURE = "measure"  # what the file `stop` holds where it is asked for
UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()  # of a state, from version 1 to 2, 2 to 3, ...
NEEDED = {"id", "state", "step", "max_steps", "pid", "started", "heartbeat", "message"}  # in every state


def default_workspace() -> Path:
    """HYDRALORA_HOME, else the user's data folder."""
    return Path(os.environ.get("HYDRALORA_HOME") or platformdirs.user_data_path("hydralora"))


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint with its step; None where there is none."""
        return next(reversed(saved_checkpoints(self.checkpoints).items()), None)

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    def log_lines(self, most: int) -> list[str]:
        """The lines of the last `most` bytes of the log; none before it begins."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - most))
                return file.read().decode("utf-8", errors="replace").splitlines()[size > most :]
        except FileNotFoundError:
            return []

    @property
    def has_adapter(self) -> bool:
        return (self.adapter / ADAPTER_WEIGHTS).exists()

    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.yaml")

    def state(self) -> dict[str, Any]:
        """The run's state.json: version, id, state, step, max_steps, pid, started, heartbeat, message, base, ...

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.folder / "state.json"
        try:
            state = json.loads(patiently(lambda: path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise RunError(f"Run {self.id}: {path} can't be read ({error}). Delete the folder.") from error
        if not isinstance(state, dict) or NEEDED - set(state):
            raise RunError(f"Run {self.id}: {path} holds no run's state. Delete the folder.")
        version = state.get("version", 1)
        if version > VERSION:
            raise RunError(f"Run {self.id} was made by a newer hydralora (its version is {version}). Update this one.")
        for upgrade in UPGRADES[version - 1 :]:
            state = upgrade(state)
        return state | {"version": VERSION}

    def update(self, **changes: Any) -> dict[str, Any]:
        """Write changes into state.json, whole or not at all, with a new heartbeat (seconds since 1970)."""
        with FileLock(self.folder / ".state.lock"):  # two processes that change it at once lose neither's change
            state = self.state() | changes | {"heartbeat": time.time()}
            write_json(self.folder / "state.json", state)
        return state

    def begin(self, recipe: Recipe, **state: Any) -> None:
        """Write the recipe and the first state: queued, unless `state` says otherwise."""
        write_text(self.folder / "recipe.yaml", recipe.to_yaml())
        first = {
            "version": VERSION,
            "id": self.id,
            "state": "queued",
            "step": 0,
            "max_steps": recipe.training.max_steps,
            "pid": None,
            "started": time.time(),
            "heartbeat": time.time(),
            "message": "",
            "base": None,
            "adapter_hash": None,
        }
        write_json(self.folder / "state.json", first | state)

    def write_events(self, events: Iterable[dict[str, Any]]) -> None:
        """All events anew."""
        write_text(self.folder / "events.jsonl", "".join(to_json(event) + "\n" for event in events))

    def add_event(self, event: dict[str, Any]) -> None:
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(to_json(event) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All events so far; a last line that is still being written is left out."""
        return list(self._read_events())

    def follow_events(self) -> "EventTail":
        """The events as they come, for who asks again and again."""
        return EventTail(self.folder / "events.jsonl")

    def before(self) -> dict[str, Any] | None:
        """The base model's scores on the held-out rows; None where they were not measured yet."""
        own = ("step", "time", "kind", "split", "answers")
        found = (event for event in self._read_events() if event["kind"] == "eval" and event["split"] == "before")
        return next(({key: value for key, value in event.items() if key not in own} for event in found), None)

    def rewind(self) -> int:
        """Forget what happened after the newest checkpoint, which is gone on from; returns its step, 0 without one."""
        newest = self.newest_checkpoint()
        step = newest[0] if newest else 0
        kept = [event for event in self._read_events() if event["step"] <= step and event.get("split") != "after"]
        self.write_events(kept)
        (self.folder / "stop").unlink(missing_ok=True)
        return step

    def _read_events(self) -> Iterator[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def label(self) -> "Label":
        """What a person wrote on the run; nothing where nobody did."""
        try:
            return Label(**json.loads((self.folder / "label.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Label()

    def write_label(self, label: "Label") -> None:
        write_json(self.folder / "label.json", asdict(label))

    def request_stop(self, measure: bool = False) -> None:
        """Ask the worker to stop after its step; with `measure` to measure what was learnt, too."""
        (self.folder / "stop").write_text(MEASURE if measure else "", encoding="utf-8")

    @property
    def stop_requested(self) -> bool:
        return (self.folder / "stop").exists()

    @property
    def measure_requested(self) -> bool:
        """Whether a stop was asked for with a measurement."""
        try:
            return (self.folder / "stop").read_text(encoding="utf-8") == MEASURE
        except FileNotFoundError:
            return False

    def worker_lock(self) -> FileLock:
        """Held by the run's worker; a second one can't have it."""
        return FileLock(self.folder / ".worker.lock", timeout=LEAVING)


class EventTail:
    """A run's events; each look reads only what is new, and all of it where the file was written anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._read = -1, 0
        self._events: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """All events so far; the list stays the caller's to read, not to change."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read:
                    self._inode, self._read, self._events = status.st_ino, 0, []
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")  # a last line may still be being written
        except FileNotFoundError:
            return []
        self._read += len(whole) + len(newline)
        self._events = self._events + [json.loads(line) for line in whole.splitlines() if line]
        return self._events


@dataclass(frozen=True)
class Label:
    """What a person calls a run, says of it, and finds it again by."""

    name: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True)
class Queue:
    """The ids of the runs that wait, the next one first, and how many may be at work at once."""

    waiting: list[str] = field(default_factory=list)
    slots: int = 1
    version: int = VERSION


class RunStore:
    """The runs of a workspace."""

    def __init__(self, workspace: Path | str | None = None) -> None:
        self.workspace = Path(workspace or default_workspace()).expanduser().resolve()
        self.folder = self.workspace / "runs"

    def create(self, recipe: Recipe) -> Run:
        """A new run, queued, with its recipe on disk."""
        with self.place() as run:
            run.begin(recipe)
        return self.get(run.id)

    @contextmanager
    def place(self) -> Iterator[Run]:
        """A new run to fill; after the block it is among the others, under the same id, in another folder.

        An error leaves nothing of it.
        """
        run_id = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        building = self.folder / ".building" / run_id
        building.mkdir(parents=True)
        try:
            yield Run(building)
            os.replace(building, self.folder / run_id)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe with the adapter's folder where it starts from a run of this workspace.

        Raises:
            RunError: there is no such run, it has no adapter, or is of another base model.
        """
        if not recipe.start_from or not RUN_ID.fullmatch(recipe.start_from):
            return recipe
        run = self.get(recipe.start_from)
        if not run.has_adapter:
            raise RunError(f"start_from: run {run.id} has no adapter yet. Wait until it ends, or choose another one.")
        if run.recipe().model != recipe.model:
            raise RunError(f"start_from: run {run.id} is of another base model, {run.recipe().model}. Set it as model.")
        return recipe.model_copy(update={"start_from": str(run.adapter)})

    def get(self, run: str) -> Run:
        """The run with this id, or in this folder.

        Raises:
            RunError: there is none.
        """
        try:
            folder = self.folder / run if RUN_ID.fullmatch(run) else Path(run).expanduser().resolve()
            exists = (folder / "state.json").exists()
        except (OSError, RuntimeError, ValueError):  # not a possible path: too long, a null byte, an unknown home
            exists = False
        if not exists:
            raise RunError(f"There is no run {run!r} in {self.folder}. `hydralora runs` lists those that exist.")
        return Run(folder)

    def all(self) -> list[Run]:
        """Every run whose state can be read, newest first."""
        damaged = self.damaged()
        return [run for run in self._folders() if run not in damaged]

    def damaged(self) -> dict[Run, str]:
        """The runs whose state can't be read, newest first, and why."""
        found = {}
        for run in self._folders():
            try:
                run.state()
            except RunError as error:
                found[run] = str(error)
        return found

    def queue(self) -> "Queue":
        """The runs that wait; none where nobody ever had to."""
        try:
            return Queue(**json.loads(patiently(lambda: self._queue_file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            return Queue()

    def write_queue(self, queue: "Queue") -> None:
        write_json(self._queue_file, asdict(queue))

    @property
    def _queue_file(self) -> Path:
        return self.folder / "queue.json"

    def _folders(self) -> list[Run]:
        if not self.folder.is_dir():
            return []
        whole = (path.parent for path in self.folder.glob("*/state.json"))  # else a deletion was cut off
        found = [Run(folder) for folder in whole if RUN_ID.fullmatch(folder.name)]
        return sorted(found, key=lambda run: run.id, reverse=True)

    def delete(self, run: Run) -> None:
        """Take a run out of the list; `restore` brings it back for a day (`empty_bin`)."""
        self._bin.mkdir(parents=True, exist_ok=True)
        os.replace(run.folder, self._bin / run.id)

    def deleted(self) -> list[str]:
        """The ids of the runs that can be restored, the one deleted last first."""
        found = [folder for folder in self._bin.glob("*") if RUN_ID.fullmatch(folder.name)]
        return [folder.name for folder in sorted(found, key=lambda folder: folder.stat().st_ctime, reverse=True)]

    def restore(self, run_id: str) -> Run:
        """Bring a deleted run back.

        Raises:
            RunError: it is not among the deleted ones.
        """
        if run_id not in self.deleted():
            raise RunError(f"Run {run_id} is not among those that were deleted, so it can't be brought back.")
        os.replace(self._bin / run_id, self.folder / run_id)
        return self.get(run_id)

    def empty_bin(self) -> None:
        """Delete for good what was deleted more than a day ago."""
        for run_id in self.deleted():
            folder = self._bin / run_id
            if time.time() - folder.stat().st_ctime > BIN_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _bin(self) -> Path:
        return self.folder / ".deleted"
