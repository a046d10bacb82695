"""A run's process: starting it here or on a cluster, and checking whether it is alive."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil

from hydralora.errors import ConfigError
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run
from hydralora.runs.state import RunState

HOST = socket.gethostname()
TORCHRUN = ("TORCHELASTIC_", "LOCAL_", "GROUP_", "ROLE_", "RANK", "WORLD_SIZE", "MASTER_", "OMP_NUM_THREADS")
CLUSTER = "slurm"  # as submitit calls it
SILENCE = 300.0  # seconds without a heartbeat after which a run on another machine counts as dead
START_GRACE = 60.0  # seconds in which a queued run may have no process yet


def submit(runs: Sequence[tuple[Run, Recipe]]) -> list[str]:
    """Submit runs as jobs of a cluster, several as one array; returns the jobs' ids.

    Args:
        runs: at least one; the first one's recipe says what the cluster is asked for.

    Raises:
        ConfigError: submitit is not installed, the cluster can't be reached, or it doesn't know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("launch.executor=slurm needs submitit: pip install 'hydralora-studio[slurm]'.") from error
    commands = [
        submitit.helpers.CommandFunction(worker_command(run, recipe.launch.processes), verbose=False)
        for run, recipe in runs
    ]
    first, recipe = runs[0]
    alone = len(runs) == 1
    folder = first.folder / "job" if alone else first.folder.parent / ".jobs" / first.id
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        executor.update_parameters(name=first.id, **(recipe.launch.slurm or {}))
        if alone:
            return [str(executor.submit(commands[0]).job_id)]
        with executor.batch():
            jobs = [executor.submit(command) for command in commands]
        return [str(job.job_id) for job in jobs]
    except (RuntimeError, NameError, TypeError, ValueError, OSError) as error:
        hint = "Check launch.slurm, and that sbatch is installed."
        raise ConfigError(f"SLURM rejected the run: {error}. {hint}") from error


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


def worker_command(run: Run, processes: int) -> list[str]:
    """The worker, or torchrun with several of them; `accelerate launch --cpu` would start only one."""
    worker = ["-m", "hydralora.training.worker", str(run.folder)]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        worker = [*launcher, "--log-dir", os.devnull, "--nproc-per-node", str(processes), *worker]
    return [sys.executable, *worker]


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
    if elsewhere(state):
        return (bool(state.job) and state.state == "queued") or time.time() - state.heartbeat < SILENCE
    children[:] = [child for child in children if child.poll() is None]
    if state.pid is None:
        return time.time() - state.heartbeat < START_GRACE
    try:
        process = psutil.Process(state.pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < state.heartbeat + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it exists, but belongs to another user
        return True
