"""A run's process: started here or on a cluster, and told apart from one that died."""

import os
import socket
import subprocess
import sys
import time
from typing import Any

import psutil

from hydralora.errors import ConfigError
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run
from hydralora.runs.state import RunState

HOST = socket.gethostname()
TORCHRUN = ("TORCHELASTIC_", "LOCAL_", "GROUP_", "ROLE_", "RANK", "WORLD_SIZE", "MASTER_", "OMP_NUM_THREADS")
CLUSTER = "slurm"  # as submitit calls it
SILENCE = 300.0  # seconds after which a run of another machine, whose process can't be looked at from here, is dead
START_GRACE = 60.0  # seconds in which a queued run may have no process yet


def submit(run: Run, recipe: Recipe) -> str:
    """Make a run a job of a cluster; returns the job's id.

    Raises:
        ConfigError: submitit is not installed, the cluster is not there, or it doesn't know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("launch.executor=slurm needs submitit: pip install 'hydralora-studio[slurm]'.") from error
    command = submitit.helpers.CommandFunction(worker_command(run, recipe.launch.processes), verbose=False)
    try:
        executor = submitit.AutoExecutor(folder=run.folder / "job", cluster=CLUSTER)
        executor.update_parameters(name=run.id, **(recipe.launch.slurm or {}))
        return str(executor.submit(command).job_id)
    except (RuntimeError, NameError, TypeError, ValueError, OSError) as error:
        hint = "Look at launch.slurm, and whether sbatch is here."
        raise ConfigError(f"SLURM did not take the run: {error}. {hint}") from error


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
    """This process's environment, without what torchrun told it of a place among several: the new one has its own."""
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
    if sys.platform == "win32":  # without a window of its own
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


children: list[subprocess.Popen[bytes]] = []  # kept so that an ended worker doesn't stay a zombie that looks alive


def elsewhere(state: RunState) -> bool:
    """Whether a run's process is, or will be, on another machine: in a job, or of an app on the same storage."""
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
    except psutil.AccessDenied:  # it is there, only not ours to look at
        return True
