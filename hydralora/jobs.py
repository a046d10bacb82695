"""Jobs: a run's worker process, started, stopped, and told apart from one that died."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from filelock import FileLock

from hydralora.errors import RunError
from hydralora.recipe import Recipe
from hydralora.runs import ACTIVE, Run, RunStore

RESUMABLE = ("stopped", "interrupted", "failed")
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
        with self._one_at_a_time():
            run = self.store.create(recipe)
            _spawn(run, recipe)
        return run

    def resume(self, run: Run) -> int:
        """Go on with a run that was stopped, interrupted or failed; returns the step of the checkpoint it goes on from.

        What it did after that step is forgotten; without a checkpoint it starts anew.

        Raises:
            RunError: it is active or finished, or another run is active.
        """
        with self._one_at_a_time():
            found = self.refresh(run)["state"]
            if found not in RESUMABLE:
                raise RunError(f"Run {run.id} is {found}, so there is nothing to resume.")
            recipe = run.recipe()
            step = run.rewind()
            run.update(state="queued", pid=None, step=step, message=f"resuming from step {step}", progress=None)
            _spawn(run, recipe)
        return step

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """While a run is started no other one is, by whatever process; none may be active."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.store.folder / ".start.lock"):
            busy = self.active()
            if busy:
                raise RunError(f"Run {busy.id} is {busy.state()['state']}. Wait until it ends, or stop it first.")
            yield

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
                newest = run.newest_checkpoint()
                kept = f"checkpoint at {newest[0]}" if newest else "no checkpoint yet"
                total = f" of {state['max_steps']}" if state["max_steps"] else ""
                return run.update(
                    state="interrupted", message=f"its process ended at step {state['step']}{total}; {kept}"
                )
        if state["state"] in ACTIVE and run.stop_requested:
            return state | {"state": "stopping", "message": "stopping after this step"}
        return state

    def follow(
        self, run: Run, on_event: Callable[[dict], None] = lambda event: None, poll: float = 0.5, seen: int = 0
    ) -> dict:
        """Block until the run ends, passing its events on, but for the first `seen`; returns its last state."""
        while True:
            state = self.refresh(run)
            events = run.events()
            for event in events[seen:]:
                on_event(event)
            seen = len(events)
            if state["state"] not in ACTIVE:
                return state
            time.sleep(poll)


def _spawn(run: Run, recipe: Recipe) -> None:
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
        return time.time() - state["heartbeat"] < START_GRACE
    try:
        process = psutil.Process(state["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < state["heartbeat"] + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it is there, only not ours to look at
        return True
