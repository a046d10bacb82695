"""Jobs: a run's worker process, started, stopped, and told apart from one that died."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psutil
from filelock import FileLock, Timeout

from hydralora.errors import ConfigError, HydraError, RunError
from hydralora.recipe import Recipe
from hydralora.runs import ACTIVE, Queue, Run, RunStore

HOST = socket.gethostname()
RESUMABLE = ("stopped", "interrupted", "failed")
TORCHRUN = ("TORCHELASTIC_", "LOCAL_", "GROUP_", "ROLE_", "RANK", "WORLD_SIZE", "MASTER_", "OMP_NUM_THREADS")
CLUSTER = "slurm"  # as submitit calls it
SILENCE = 300.0  # seconds after which a run of another machine, whose process can't be looked at from here, is dead
KILLING = 10.0  # seconds
START_GRACE = 60.0  # seconds in which a queued run may have no process yet


class JobManager:
    """Starts and stops the runs of a store: as many at once as it has slots, the others wait in a queue."""

    def __init__(self, store: RunStore) -> None:
        self.store = store

    def start(self, recipe: Recipe) -> Run:
        """Create a run; its worker starts now, or when it is its turn, and goes on when this process ends.

        Raises:
            RunError: it starts from a run that can't be gone on from.
        """
        self.store.resolved(recipe)
        run = self.store.create(recipe)
        with self._lock():
            self._enqueue(run, recipe)
        self.advance()
        return run

    def resume(self, run: Run) -> int:
        """Go on with a run that was stopped, interrupted or failed; returns the step of the checkpoint it goes on from.

        What it did after that step is forgotten; without a checkpoint it starts anew.

        Raises:
            RunError: it is active or finished, or a process still works on it.
        """
        with self._lock():
            found = self.refresh(run)["state"]
            if found not in RESUMABLE:
                raise RunError(f"Run {run.id} is {found}, so there is nothing to resume.")
            recipe = run.recipe()
            try:
                with run.worker_lock():  # a worker that was taken for dead must not find its events gone
                    step = run.rewind()
            except Timeout:
                raise RunError(f"Run {run.id} is still at work in another process. Stop it, or wait.") from None
            run.update(state="queued", pid=None, step=step, message=f"resuming from step {step}", progress=None)
            self._enqueue(run, recipe)
        self.advance()
        return step

    def stop(self, run: Run, measure: bool = False) -> None:
        """Ask a run to stop after its step and keep what it learnt; one that waits leaves the queue.

        Args:
            measure: what it learnt on the held-out rows, before it ends.

        Raises:
            RunError: it is not running.
        """
        with self._lock():
            state = self.refresh(run)
            if state["state"] not in ACTIVE:
                raise RunError(f"Run {run.id} is {state['state']}, so there is nothing to stop.")
            if self.is_waiting(run):
                self._leave(run)
            else:
                run.request_stop(measure)  # only the worker writes its run's state while it lives

    def kill(self, run: Run) -> None:
        """End a run's processes at once; what it did since its newest checkpoint is lost.

        Raises:
            RunError: they are on another machine.
        """
        state = run.state()
        if state["pid"] is None or not _alive(state):
            return
        if elsewhere(state):
            where = f"in job {state['job']}" if state.get("job") else f"on {state['host']}"
            raise RunError(f"Run {run.id} is at work {where}, so it can't be ended from here. It was asked to stop.")
        launcher = psutil.Process(state["pid"])
        for process in [*launcher.children(recursive=True), launcher]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([launcher], timeout=KILLING)
        self.refresh(run)

    def delete(self, run: Run) -> None:
        """Take a run out of the list, and of the queue; `RunStore.restore` brings it back.

        Raises:
            RunError: it is at work.
        """
        with self._lock():
            if self.is_waiting(run):
                self._leave(run)
            elif self.refresh(run)["state"] in ACTIVE:
                raise RunError(f"Run {run.id} is at work. Stop it first, then delete it.")
            self.store.delete(run)

    def move(self, run: Run, place: int) -> None:
        """Give a waiting run another place in the queue, 0 for the next.

        Raises:
            RunError: it doesn't wait.
        """
        with self._lock():
            if not self.is_waiting(run):
                raise RunError(f"Run {run.id} doesn't wait any more, so it has no place in the queue.")
            queue = self.store.queue()
            waiting = [other for other in queue.waiting if other != run.id]
            waiting.insert(max(0, place), run.id)
            self.store.write_queue(replace(queue, waiting=waiting))

    def set_slots(self, slots: int) -> None:
        """How many runs may be at work at once."""
        with self._lock():
            self.store.write_queue(replace(self.store.queue(), slots=max(1, slots)))
        self.advance()

    def is_waiting(self, run: Run) -> bool:
        return run.id in self.store.queue().waiting

    def swap(self, run: Run, by: int) -> None:
        """Let a waiting run change places: -1 for one place sooner, 1 for one later.

        Raises:
            RunError: it doesn't wait.
        """
        waiting = self.store.queue().waiting
        self.move(run, waiting.index(run.id) + by if run.id in waiting else 0)

    def waiting(self) -> list[Run]:
        """The runs that wait, the next one first."""
        known = {run.id: run for run in self.store.all()}
        return [known[run_id] for run_id in self.store.queue().waiting if run_id in known]

    def ahead(self, run: Run) -> int:
        """How many runs are at work, or wait, before this one."""
        waiting = self.store.queue().waiting
        return len(self.active()) + waiting.index(run.id) if run.id in waiting else 0

    def active(self) -> list[Run]:
        """The runs that are at work on this machine now."""
        waiting = set(self.store.queue().waiting)
        states = {run: self.refresh(run) for run in self.store.all() if run.id not in waiting}
        return [run for run, state in states.items() if state["state"] in ACTIVE and not elsewhere(state)]

    def advance(self) -> None:
        """Start the workers whose turn it is; whoever looks at the queue, or ends a run, calls this."""
        if not self.store.queue().waiting:
            return
        with self._lock():
            queue = self.store.queue()
            waiting, free = list(queue.waiting), queue.slots - len(self.active())
            while waiting and free > 0:
                run = Run(self.store.folder / waiting.pop(0))
                free -= self._start_worker(run, replace(queue, waiting=list(waiting)))

    def _start_worker(self, run: Run, rest: Queue) -> bool:
        """Take a run from the queue and start its worker; False for one that can't be read."""
        try:
            recipe = run.recipe()
            run.update(message="starting")  # its sign of life may be hours old
        except HydraError as error:
            self.store.write_queue(rest)
            if (run.folder / "state.json").exists():
                run.update(state="failed", message=str(error))
            return False
        self.store.write_queue(rest)
        _spawn(run, recipe)
        return True

    def _leave(self, run: Run) -> None:
        queue = self.store.queue()
        self.store.write_queue(replace(queue, waiting=[other for other in queue.waiting if other != run.id]))
        run.update(state="stopped", message="before it started")

    def _enqueue(self, run: Run, recipe: Recipe) -> None:
        """Let a run wait for its turn here, or hand it to a cluster, which has a queue of its own."""
        if recipe.launch.executor == "slurm":
            try:
                run.update(job=_submit(run, recipe), message="handed to SLURM")
            except ConfigError as error:
                run.update(state="failed", message=str(error))
                raise
            return
        queue = self.store.queue()
        self.store.write_queue(replace(queue, waiting=[*queue.waiting, run.id]))

    def _lock(self) -> FileLock:
        """While it is held no other process starts, moves or stops a run."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.store.folder / ".start.lock")

    def refresh(self, run: Run) -> dict:
        """The run's state, after a check that its worker still lives; one that died reads "interrupted"."""
        state = run.state()
        if state["state"] == "queued" and self.is_waiting(run):
            return state
        if state["state"] in ACTIVE and not _alive(state):
            state = run.state()  # it may have ended properly in between
            if state["state"] in ACTIVE:
                newest = run.newest_checkpoint()
                kept = f"checkpoint at {newest[0]}" if newest else "no checkpoint yet"
                total = f" of {state['max_steps']}" if state["max_steps"] else ""
                found = {"state": "interrupted", "message": f"its process ended at step {state['step']}{total}; {kept}"}
                try:
                    return run.update(**found)
                except OSError:  # a full disk keeps nobody from seeing it
                    return state | found
        if state["state"] in ACTIVE and run.stop_requested:
            return state | {"state": "stopping", "message": "stopping after this step"}
        return state

    def follow(
        self, run: Run, on_event: Callable[[dict], None] = lambda event: None, poll: float = 0.5, seen: int = 0
    ) -> dict:
        """Block until the run ends, passing its events on, but for the first `seen`; returns its last state."""
        tail = run.follow_events()
        while True:
            state = self.refresh(run)
            events = tail.look()
            for event in events[seen:]:
                on_event(event)
            self.advance()
            seen = len(events)
            if state["state"] not in ACTIVE:
                return state
            time.sleep(poll)


def _submit(run: Run, recipe: Recipe) -> str:
    """Make a run a job of a cluster; returns the job's id.

    Raises:
        ConfigError: submitit is not installed, the cluster is not there, or it doesn't know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("launch.executor=slurm needs submitit: pip install 'hydralora-studio[slurm]'.") from error
    command = submitit.helpers.CommandFunction(_command(run, recipe.launch.processes), verbose=False)
    try:
        executor = submitit.AutoExecutor(folder=run.folder / "job", cluster=CLUSTER)
        executor.update_parameters(name=run.id, **(recipe.launch.slurm or {}))
        return str(executor.submit(command).job_id)
    except (RuntimeError, NameError, TypeError, ValueError, OSError) as error:
        hint = "Look at launch.slurm, and whether sbatch is here."
        raise ConfigError(f"SLURM did not take the run: {error}. {hint}") from error


def _spawn(run: Run, recipe: Recipe) -> None:
    with run.log.open("ab") as log:
        process = subprocess.Popen(
            _command(run, recipe.launch.processes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            **_detached(),
        )
    _children.append(process)
    run.update(pid=process.pid, host=HOST)  # the worker itself may take minutes to import what it needs


def _environment() -> dict[str, str]:
    """This process's environment, without what torchrun told it of a place among several: the new one has its own."""
    if not any(name.startswith("TORCHELASTIC_") for name in os.environ):
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if not name.startswith(TORCHRUN)}


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


def elsewhere(state: dict) -> bool:
    """Whether a run's process is, or will be, on another machine: in a job, or of an app on the same storage."""
    return bool(state.get("job")) or state.get("host") not in (None, HOST)


def _alive(state: dict) -> bool:
    if elsewhere(state):
        return (bool(state.get("job")) and state["state"] == "queued") or time.time() - state["heartbeat"] < SILENCE
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
