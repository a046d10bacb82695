"""A store of runs, and what ends those that a test leaves at work."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hydralora import RunStore
from hydralora.runs import processes
from hydralora.runs.jobs import JobManager


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "workspace")


@pytest.fixture
def jobs(store: RunStore) -> Iterator[JobManager]:
    """Ends what a test leaves running, and lets nothing follow it."""
    yield JobManager(store)
    store.write_queue(type(store.queue())())
    for run in store.all():
        pid = run.state().pid
        if pid and pid != os.getpid() and psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    for child in processes.children:
        child.wait(30)
