"""Starting, stopping, resuming and following runs, as many at once as there are slots."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from filelock import FileLock, Timeout

from hydralora.errors import ConfigError, HydraError, RunError
from hydralora.recipe.settings import Recipe
from hydralora.runs.checkpoints import set_aside_damaged
from hydralora.runs.cluster import cancel, submit
from hydralora.runs.events import NoteEvent, OnEvent
from hydralora.runs.processes import check_processes, elsewhere, end_processes, is_alive, spawn
from hydralora.runs.run import Label, Run
from hydralora.runs.state import ACTIVE, RESUMABLE, RunState
from hydralora.runs.store import Queue, RunStore


class JobManager:
    """Starts and stops the runs of a store: as many at once as it has slots; the others wait in a queue.

    Machines that share the store's folder share its queue, and each has its own slots: a run is taken from the queue
    under a lock, by whichever is free first.

    Args:
        slots: of this machine; None: as many as the queue says for every machine.
    """

    def __init__(self, store: RunStore, slots: int | None = None) -> None:
        self.store = store
        self._slots = slots

    def start(self, recipe: Recipe, label: Label | None = None) -> Run:
        """Create a run; its worker starts at once or when a slot is free, and outlives this process.

        Raises:
            RunError: it starts from a run that can't be continued.
        """
        return self.start_all([(recipe, label)])[0]

    def start_all(self, wanted: Sequence[tuple[Recipe, Label | None]]) -> list[Run]:
        """Create several runs; those for a cluster become one array of jobs.

        Raises:
            RunError: one starts from a run that can't be continued.
            ConfigError: one asks for more processes than this machine has cores.
        """
        for recipe, _ in wanted:
            self.store.resolved(recipe)
            check_processes(recipe)
        runs = [(self.store.create(recipe, label), recipe) for recipe, label in wanted]
        with self._lock():
            self._enqueue(runs)
        self.advance()
        return [run for run, _ in runs]

    def resume(self, run: Run) -> int:
        """Resume a run that was stopped, interrupted or failed; returns the step of the checkpoint it resumes from.

        Later steps are discarded; without a checkpoint the run starts again.

        Raises:
            RunError: it is active or finished, ships with the program, or a process is still working on it.
        """
        run.refuse_if_shipped("resumed")
        with self._lock():
            state = self.refresh(run).state
            if state not in RESUMABLE:
                raise RunError(f"Run {run.id} is {state}, so there is nothing to resume.")
            recipe = run.recipe()
            try:
                with run.worker_lock():  # a worker wrongly taken for dead must not lose its events
                    step, told = rewind(run)
            except Timeout:
                raise RunError(f"Run {run.id} is still running in another process. Stop it, or wait.") from None
            run.update(
                state="queued",
                pid=None,
                step=step,
                message=f"resuming from step {step}{told and '; '}{told}",
                stage=None,
                progress=None,
                fraction=None,
                base_measured=run.before() is not None,
            )
            self._enqueue([(run, recipe)])
        self.advance()
        return step

    def stop(self, run: Run, measure: bool = False) -> None:
        """Request a run to stop at once and save what it learnt; a run that hasn't begun ends here.

        Args:
            measure: whether to evaluate the adapter on the held-out rows before the run ends.

        Raises:
            RunError: it is not running.
        """
        with self._lock():
            state = self.refresh(run)
            if state.state not in ACTIVE:
                raise RunError(f"Run {run.id} is {state.state}, so there is nothing to stop.")
            if self.is_waiting(run):
                self._leave(run)
            elif not (state.state == "queued" and self._end_unbegun(run)):
                run.request_stop(measure)  # only the worker writes its run's state while it lives
        self.advance()

    def _end_unbegun(self, run: Run) -> bool:
        """End a process that still imports what it needs, or a job that waits; False if it has begun to work."""
        try:
            with run.worker_lock().acquire(timeout=0):
                state = run.state()
                if state.state != "queued":
                    return False
                run.update(state="stopped", message=_unbegun(state), ended=time.time())
        except Timeout:
            return False
        if state.job:
            cancel(state.job)
        elif state.pid is not None and not elsewhere(state):
            end_processes(state.pid)
        return True

    def kill(self, run: Run) -> None:
        """Kill a run's processes; steps after its newest checkpoint are lost.

        Raises:
            RunError: they are on another machine, and no job of a cluster.
        """
        state = run.state()
        if state.pid is None or not is_alive(state):
            return
        if state.job:
            cancel(state.job)
            return
        if elsewhere(state):
            raise RunError(
                f"Run {run.id} is running on {state.host}, so it can't be killed from here. It was asked to stop."
            )
        end_processes(state.pid)
        self.refresh(run)

    def delete(self, run: Run) -> None:
        """Remove a run from the list and the queue; `RunStore.restore` restores it.

        Raises:
            RunError: it is running, or ships with the program.
        """
        run.refuse_if_shipped("deleted")
        with self._lock():
            if self.is_waiting(run):
                self._leave(run)
            elif self.refresh(run).state in ACTIVE:
                raise RunError(f"Run {run.id} is running. Stop it first, then delete it.")
            self.store.delete(run)

    def move(self, run: Run, place: int) -> None:
        """Move a waiting run to another place in the queue, 0 for the next.

        Raises:
            RunError: it doesn't wait.
        """
        with self._lock():
            if not self.is_waiting(run):
                raise RunError(f"Run {run.id} is not waiting any more, so it has no place in the queue.")
            queue = self.store.queue()
            waiting = [other for other in queue.waiting if other != run.id]
            waiting.insert(max(0, place), run.id)
            self.store.write_queue(replace(queue, waiting=waiting))

    def set_slots(self, slots: int) -> None:
        """Set how many runs may be active at once."""
        with self._lock():
            self.store.write_queue(replace(self.store.queue(), slots=max(1, slots)))
        self.advance()

    def is_waiting(self, run: Run) -> bool:
        return run.id in self.store.queue().waiting

    def swap(self, run: Run, by: int) -> None:
        """Move a waiting run in the queue: -1 for one place sooner, 1 for one later.

        Raises:
            RunError: it doesn't wait.
        """
        waiting = self.store.queue().waiting
        self.move(run, waiting.index(run.id) + by if run.id in waiting else 0)

    def waiting(self) -> list[Run]:
        """The waiting runs, the next one first."""
        runs = (Run(self.store.folder / run_id) for run_id in self.store.queue().waiting)
        known = self.store.states()
        return [run for run in runs if run in known]

    def ahead(self, run: Run) -> int:
        """Number of runs that are active or wait before this one."""
        waiting = self.store.queue().waiting
        return len(self.active()) + waiting.index(run.id) if run.id in waiting else 0

    def active(self) -> list[Run]:
        """The active runs on this machine."""
        waiting = set(self.store.queue().waiting)
        return [
            run
            for run, state in self.states().items()
            if state.state in ACTIVE and run.id not in waiting and not elsewhere(state)
        ]

    def advance(self) -> list[Run]:
        """Start waiting runs for which there are slots; called whenever the queue is read or a run ends."""
        started: list[Run] = []
        if not self.store.queue().waiting:
            return started
        with self._lock():
            queue = self.store.queue()
            waiting, free = list(queue.waiting), (self._slots or queue.slots) - len(self.active())
            while waiting and len(started) < free:
                run = Run(self.store.folder / waiting.pop(0))
                if self._start_worker(run, replace(queue, waiting=list(waiting))):
                    started.append(run)
        return started

    def _start_worker(self, run: Run, rest: Queue) -> bool:
        """Take a run from the queue and start its worker; False for one that can't be read."""
        try:
            recipe = run.recipe()
            run.update(message="starting")  # its heartbeat may be hours old
        except HydraError as error:
            self.store.write_queue(rest)
            if (run.folder / "state.json").exists():
                run.update(state="failed", message=str(error))
            return False
        self.store.write_queue(rest)
        spawn(run, recipe)
        return True

    def _leave(self, run: Run) -> None:
        queue = self.store.queue()
        self.store.write_queue(replace(queue, waiting=[other for other in queue.waiting if other != run.id]))
        run.update(state="stopped", message=_unbegun(run.state()))

    def _enqueue(self, runs: Sequence[tuple[Run, Recipe]]) -> None:
        """Add runs to the queue, or submit them to a cluster, which has its own queue."""
        queue = self.store.queue()
        here = [run.id for run, recipe in runs if recipe.launch.executor != "slurm"]
        if here:
            self.store.write_queue(replace(queue, waiting=[*queue.waiting, *here]))
        to_submit = [(run, recipe) for run, recipe in runs if recipe.launch.executor == "slurm"]
        if not to_submit:
            return
        try:
            for (run, _), job in zip(to_submit, submit(to_submit), strict=True):
                run.update(job=job, message="submitted to SLURM")
        except ConfigError as error:
            for run, _ in to_submit:
                run.update(state="failed", message=str(error))
            raise

    def _lock(self) -> FileLock:
        """A lock: while it is held, no other process starts, moves or stops a run."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.store.folder / ".start.lock")

    def refresh(self, run: Run) -> RunState:
        """The run's state, after a check that its worker still lives; one that died reads "interrupted"."""
        state = run.state()
        return self._refreshed(run, state, state.state == "queued" and self.is_waiting(run))

    def states(self) -> dict[Run, RunState]:
        """Every run whose state can be read, newest first, with its state as by `refresh`."""
        waiting = set(self.store.queue().waiting)
        states = {}
        for run, state in self.store.states().items():
            with suppress(RunError):  # it was deleted meanwhile
                states[run] = self._refreshed(run, state, state.state == "queued" and run.id in waiting)
        return states

    def _refreshed(self, run: Run, state: RunState, waits: bool) -> RunState:
        if waits:
            return state
        if state.state in ACTIVE and not is_alive(state) and not run.is_worked_on:
            state = run.state()  # it may have ended properly in between
            if state.state in ACTIVE:
                newest = run.newest_checkpoint()
                checkpoint = f"checkpoint at {newest[0]}" if newest else "no checkpoint yet"
                total = f" of {state.max_steps}" if state.max_steps else ""
                message = f"its process ended at step {state.step}{total}; {checkpoint}"
                if state.job and state.state == "queued":
                    message = f"job {state.job} left SLURM's queue before it began"
                try:
                    return run.update(state="interrupted", message=message)
                except OSError:  # a full disk must not hide the state
                    return state.changed(state="interrupted", message=message)
        if state.state in ACTIVE and run.stop_requested:
            return state.changed(state="stopping", message="stopping")
        return state

    def follow(
        self,
        run: Run,
        on_event: OnEvent = lambda event: None,
        poll: float = 0.5,
        seen: int = 0,
        on_state: Callable[[RunState], None] = lambda state: None,
    ) -> RunState:
        """Block until the run ends, passing on its events after the first `seen`, and its state at each look.

        Returns:
            Its last state.
        """
        tail = run.follow_events(seen)
        while True:
            state = self.refresh(run)
            for event in tail.look():
                on_event(event)
            on_state(state)
            self.advance()
            if state.state not in ACTIVE:
                return state
            time.sleep(poll)


def rewind(run: Run) -> tuple[int, str]:
    """Go back to a run's newest whole checkpoint; the caller holds its worker's lock.

    Returns:
        Its step, and which checkpoints are damaged, if any.
    """
    damaged = ", ".join(set_aside_damaged(run.checkpoints))
    step = run.rewind()
    if damaged:
        lost = f"{damaged}, so the run goes on from {f'step {step}' if step else 'its beginning'}"
        run.add_event(NoteEvent(step=step, time=time.time(), lost=lost))
    return step, damaged


def _unbegun(state: RunState) -> str:
    """What is kept of a run that is stopped before its process works."""
    if state.step:
        return f"Stopped before it continued: the checkpoint of step {state.step} is kept."
    return "Stopped before it started: nothing was learnt yet."
