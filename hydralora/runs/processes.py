"""A run's process: starting it here, ending it, and checking whether it is alive."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import psutil

from hydralora.errors import ConfigError
from hydralora.recipe.settings import Recipe
from hydralora.runs.cluster import in_queue
from hydralora.runs.commands import worker_command
from hydralora.runs.run import Run
from hydralora.runs.state import RunState

HOST = socket.gethostname()
TORCHRUN = ("TORCHELASTIC_", "LOCAL_", "GROUP_", "ROLE_", "RANK", "WORLD_SIZE", "MASTER_", "OMP_NUM_THREADS")
QUEUE_GRACE = 10.0  # seconds in which a job may not be in its cluster's queue yet
SILENCE = 300.0  # seconds without a heartbeat after which a run on another machine counts as dead
KILLING = 10.0  # seconds in which a killed process must be gone
START_GRACE = 60.0  # seconds in which a queued run may have no process yet


def check_processes(recipe: Recipe) -> None:
    """
    Raises:
        ConfigError: the recipe asks for more processes on this machine than it has cores, each with a model of its own.
    """
    cores, processes = os.cpu_count() or 1, recipe.launch.processes
    if recipe.launch.executor == "local" and processes > cores:
        raise ConfigError(f"launch.processes is {processes}, and this machine has {cores} cores. Lower it.")


def spawn(run: Run, recipe: Recipe) -> None:
    with run.log.open("ab") as log:
        process = subprocess.Popen(
            worker_command(run, recipe.launch.processes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            **_detached(),
        )
    children.append(process)
    run.update(pid=process.pid, host=HOST)  # the worker itself may take minutes to import what it needs


def _environment() -> dict[str, str]:
    """This process's environment without torchrun's variables, since the new process gets its own."""
    if not any(name.startswith("TORCHELASTIC_") for name in os.environ):
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if not name.startswith(TORCHRUN)}


def _detached() -> dict[str, Any]:
    """Popen's options for a process that outlives this one and its terminal."""
    if sys.platform == "win32":  # without its own window
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


children: list[subprocess.Popen[bytes]] = []  # kept so that ended workers are reaped and don't look alive as zombies


def elsewhere(state: RunState) -> bool:
    """Whether a run's process is, or will be, on another machine: in a job, or of an app that shares the storage."""
    return bool(state.job) or state.host not in (None, HOST)


def is_alive(state: RunState) -> bool:
    silent = time.time() - state.heartbeat
    if state.job and (queued := in_queue(state.job)) is not None:
        return queued or silent < QUEUE_GRACE
    if elsewhere(state):
        return (bool(state.job) and state.state == "queued") or silent < SILENCE
    children[:] = [child for child in children if child.poll() is None]
    if state.pid is None:
        return silent < START_GRACE
    try:
        process = psutil.Process(state.pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < state.heartbeat + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it exists, but belongs to another user
        return True


def end_processes(launcher: int) -> None:
    """Kill a process and those that it started."""
    try:
        process = psutil.Process(launcher)
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs([process], timeout=KILLING)
    except psutil.NoSuchProcess:
        return
