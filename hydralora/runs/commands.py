"""The commands that work on a run: a worker alone, or torchrun with several on one machine or on several."""

import os
import shlex
import sys
import zlib

from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run

PORTS = 20_000, 10_000  # at which processes of several machines meet: the first, and how many


def worker_command(run: Run, processes: int) -> list[str]:
    """The worker, or torchrun with several of them; `accelerate launch --cpu` would start only one."""
    if processes == 1:
        return [sys.executable, *_worker(run)]
    return [*_torchrun(processes), "--standalone", "--local-addr", "127.0.0.1", *_worker(run)]


def job_command(run: Run, recipe: Recipe) -> list[str]:
    """What each node of a SLURM job is to do; those of several nodes meet at the one that began the job's step."""
    nodes, processes = recipe.launch.nodes, recipe.launch.processes
    if nodes == 1:
        return worker_command(run, processes)
    first, count = PORTS
    port = first + zlib.crc32(run.id.encode()) % count
    launcher = shlex.join([*_torchrun(processes), "--nnodes", str(nodes), "--rdzv-id", run.id])
    meet = f'--rdzv-backend c10d --rdzv-endpoint "$SLURM_LAUNCH_NODE_IPADDR:{port}"'
    return ["sh", "-c", f"exec {launcher} {meet} {shlex.join(_worker(run))}"]


def _worker(run: Run) -> list[str]:
    return ["-m", "hydralora.training.worker", str(run.folder)]


def _torchrun(processes: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--log-dir", os.devnull]
    return [*launcher, "--nproc-per-node", str(processes)]
