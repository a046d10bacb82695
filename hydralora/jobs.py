"""Jobs: a run's worker process, started, stopped, and told apart from one that died."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
from filelock import FileLock

from hydralora.errors import RunError
from hydralora.recipe import Recipe
from hydralora.runs import ACTIVE, Run, RunStore

START_GRACE = 60.0  # seconds in which a queued run may have no process yet


class JobManager:
    """Starts and stops the runs of a store, one at a time."""

    def __init__(self, store: RunStore) -> None:
        self.store = store

    def start(self, recipe: Recipe) -> Run:
        """Create a run and start its worker, which goes on when this process ends.

        Raises:
            RunError: another run is active.
        """
        self.store.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.store.folder / ".start.lock"):
            busy = self.active()
            if busy:
                raise RunError(f"Run {busy.id} is {busy.state()['state']}. Wait until it ends, or stop it first.")
            run = self.store.create(recipe)
            with run.log.open("ab") as log:
                process = subprocess.Popen(
                    _command(run, recipe.launch.processes),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    **_detached(),
                )
            _children.append(process)
            run.update(pid=process.pid)  # the worker itself may take minutes to import what it needs
        return run

    def stop(self, run: Run) -> None:
        """Ask a run to stop after its step and keep what it learnt.

        Raises:
            RunError: it is not running.
        """
        state = self.refresh(run)["state"]
        if state not in ACTIVE:
            raise RunError(f"Run {run.id} is {state}, so there is nothing to stop.")
        run.request_stop()  # only the worker writes its run's state while it lives

    def active(self) -> Run | None:
        """The run that is at work now."""
        return next((run for run in self.store.all() if self.refresh(run)["state"] in ACTIVE), None)

    def refresh(self, run: Run) -> dict:
        """The run's state, after a check that its worker still lives; one that died reads "interrupted"."""
        state = run.state()
        if state["state"] in ACTIVE and not _alive(state):
            state = run.state()  # it may have ended properly in between
            if state["state"] in ACTIVE:
                return run.update(state="interrupted", message=f"its process ended at step {state['step']}")
        if state["state"] in ACTIVE and run.stop_requested:
            return state | {"state": "stopping", "message": "stopping after this step"}
        return state

    def follow(self, run: Run, on_event: Callable[[dict], None] = lambda event: None, poll: float = 0.5) -> dict:
        """Block until the run ends, passing its events on; returns its last state."""
        seen = 0
        while True:
            state = self.refresh(run)
            events = run.events()
            for event in events[seen:]:
                on_event(event)
            seen = len(events)
            if state["state"] not in ACTIVE:
                return state
            time.sleep(poll)


def _command(run: Run, processes: int) -> list[str]:
    """The worker, or torchrun with several of them; `accelerate launch --cpu` would start only one."""
    worker = ["-m", "hydralora.worker", str(run.folder)]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        worker = [*launcher, "--log-dir", os.devnull, "--nproc-per-node", str(processes), *worker]
    return [sys.executable, *worker]


def _detached() -> dict[str, Any]:
    """Popen's options for a process that outlives this one and its terminal."""
    if sys.platform == "win32":  # without a window of its own
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


_children: list[subprocess.Popen] = []  # kept so that an ended worker doesn't stay a zombie that looks alive


def _alive(state: dict) -> bool:
    _children[:] = [child for child in _children if child.poll() is None]
    if state["pid"] is None:
        return time.time() - state["started"] < START_GRACE
    try:
        process = psutil.Process(state["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < state["heartbeat"] + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it is there, only not ours to look at
        return True
