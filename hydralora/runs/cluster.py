"""Runs as jobs of a SLURM cluster, through submitit; and what its queue says of them."""

import subprocess
import time
from collections.abc import Sequence
from functools import lru_cache

from hydralora.errors import ConfigError
from hydralora.recipe.settings import Recipe
from hydralora.runs.commands import job_command
from hydralora.runs.run import Run

CLUSTER = "slurm"  # as submitit calls it
FRESH = 5.0  # seconds for which an answer of the queue is used again
PATIENCE = 10.0  # seconds in which the cluster must answer


def submit(runs: Sequence[tuple[Run, Recipe]]) -> list[str]:
    """Submit runs as jobs, several as one array; returns the jobs' ids.

    Args:
        runs: at least one; the first one's recipe says what the cluster is asked for.

    Raises:
        ConfigError: submitit is not installed, the cluster can't be reached, or it doesn't know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("launch.executor=slurm needs submitit: pip install 'hydralora-studio[slurm]'.") from error
    commands = [submitit.helpers.CommandFunction(job_command(run, recipe), verbose=False) for run, recipe in runs]
    first, recipe = runs[0]
    alone = len(runs) == 1
    folder = first.folder / "job" if alone else first.folder.parent / ".jobs" / first.id
    nodes = {"nodes": recipe.launch.nodes, "tasks_per_node": 1} if recipe.launch.nodes > 1 else {}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        executor.update_parameters(name=first.id, **nodes | (recipe.launch.slurm or {}))
        if alone:
            return [str(executor.submit(commands[0]).job_id)]
        with executor.batch():
            jobs = [executor.submit(command) for command in commands]
        return [str(job.job_id) for job in jobs]
    except (RuntimeError, NameError, TypeError, ValueError, OSError) as error:
        hint = "Check launch.slurm, and that sbatch is installed."
        raise ConfigError(f"SLURM rejected the run: {error}. {hint}") from error


def cancel(job: str) -> None:
    """End a job, or take it from the queue; nothing where there is no SLURM, or no such job."""
    _ask("scancel", job)


def in_queue(job: str) -> bool | None:
    """Whether a job waits or works; None where that can't be known, as on a machine without SLURM."""
    jobs = _queued(int(time.monotonic() / FRESH))
    return None if jobs is None else job in jobs


@lru_cache(maxsize=1)
def _queued(moment: int) -> frozenset[str] | None:
    """The ids of all jobs of this user, those of an array one by one."""
    answer = _ask("squeue", "--me", "--array", "--noheader", "--format=%i")
    return None if answer is None else frozenset(answer.split())


def _ask(*command: str) -> str | None:
    """What a command of SLURM prints; None if it fails."""
    try:
        return subprocess.run(
            command, check=True, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=PATIENCE
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
