"""What a worker records of its run: events, the state that follows from them, and an end that was asked for."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property

from hydralora.errors import RunError
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event, NoteEvent, ProgressEvent, StepEvent
from hydralora.runs.phases import run_progress
from hydralora.runs.run import Run
from hydralora.runs.sampled_events import INDEX_EVERY
from hydralora.runs.state import RunState, Stage, StageClock

PULSE = 30.0  # seconds between heartbeats without other events
LOOK = 0.1  # seconds between looks for a request to stop
PATIENCE = 1.0  # seconds in which a run that has learnt nothing may end by itself
# Stages in which the adapter is saved.
LEARNT = (Stage.EVALUATING_TUNED, Stage.EVALUATING_TUNED_TASKS, Stage.MEASURING_HEADS)


class Recorder:
    """Writes a run's events and state; threads take turns.

    Attributes:
        learnt: whether this process has finished a step or saved an adapter, so that its end must be waited for.
        ended: whether the run's end is being recorded.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.learnt = self.ended = False
        self._turn = threading.RLock()
        self._sampled, self._stored = run.sampled_events(), 0
        self._asked, self._looked = False, 0.0

    def stop_requested(self) -> bool:
        """Whether a stop was requested; looks at most ten times a second."""
        if not self._asked and time.monotonic() - self._looked >= LOOK:
            self._asked, self._looked = self.run.stop_requested, time.monotonic()
        return self._asked

    @cached_property
    def _recipe(self) -> Recipe:
        return self.run.recipe()

    @contextmanager
    def ending(self) -> Iterator[None]:
        """While the run's end is recorded, no other thread records anything; and none ends the process from here on."""
        with self._turn:
            self.ended = True
            yield

    def record(self, event: Event) -> None:
        """Store an event, and update the run's state from it."""
        with self._turn:
            if event.stored:
                self.run.add_event(event)
                self._sample()
                if line := event.line():
                    print(line, file=sys.stderr)  # into the log
            state = self.run.state()
            changes = self._changes(event, state)
            changes["fraction"] = run_progress(state.changed(**changes), self._recipe).fraction
            self.run.update(**changes)

    def _sample(self) -> None:
        """Sample the events now and then, so that however long the run is, it is opened soon."""
        self._stored += 1
        if self._stored % INDEX_EVERY == 0:
            with suppress(RunError):  # a line of an earlier process is damaged: who opens the run is told
                self._sampled.look()

    def _changes(self, event: Event, state: RunState) -> dict[str, object]:
        changes: dict[str, object] = {"step": event.step}
        if isinstance(event, StepEvent):
            self.learnt = True
        if isinstance(event, StepEvent | ProgressEvent) and state.clock:
            changes["clock"] = state.clock.changed(reported=event.time)
        if isinstance(event, ProgressEvent):
            changes["progress"] = (event.done, event.total)
            if state.stage is Stage.READING:
                changes["rows_read"] = event.total
        if isinstance(event, NoteEvent):
            if event.stage:
                self.learnt = self.learnt or event.stage in LEARNT
                changes |= {
                    "state": "stopping" if self.stop_requested() else event.stage.state,
                    "stage": event.stage,
                    "message": event.stage.value,
                    "progress": None,
                    "clock": StageClock(began=event.time, reported=event.time, first=event.step),
                }
            names = ("max_steps", "base", "data", "k", "rows")
            changes |= {name: value for name in names if (value := getattr(event, name)) is not None}
        return changes

    def pulse(self) -> None:
        """Update the heartbeat for ever, for observers on other machines."""
        while True:
            time.sleep(PULSE)
            with suppress(OSError, RunError), self._turn:  # a full disk may be temporary; a removed run needs none
                self.run.update()

    def end_unlearnt(self, end: Callable[[], None]) -> None:
        """Wait for a request to stop; end a run that has learnt nothing, whatever its main thread is doing.

        Loading and clustering can't be interrupted, and nothing is kept of them.

        Args:
            end: called once to record the end; afterwards this process ends.
        """
        while not self.run.stop_requested:
            if self.ended:
                return
            time.sleep(LOOK)
        time.sleep(PATIENCE)
        with self._turn:
            if self.ended or self.learnt:
                return
            end()
            sys.stderr.flush()
            os._exit(0)
