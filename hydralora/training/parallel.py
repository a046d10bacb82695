"""The processes that train one adapter together: this process's rank, and communication between them."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from hydralora.errors import ConfigError

PATIENCE = timedelta(
    days=365
)  # others wait while the first process evaluates; a dead process closes its connection at once


@dataclass(frozen=True)
class Processes:
    """This process's rank among those of its run, as set by the launcher; a single process has rank 0 of 1."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0  # among those on this machine
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that evaluates, reports and writes."""
        return self.rank == 0

    def connect(self, wanted: int, device: str) -> None:
        """Join the others; with GPUs, use the one with this process's rank.

        Raises:
            ConfigError: the number of processes isn't `wanted`, or there are fewer devices.
        """
        if self.count != wanted:
            raise ConfigError(
                f"launch.nodes times launch.processes is {wanted}, and this run has {self.count} process(es). "
                "Start it with JobManager or in the app, or set launch.processes=1."
            )
        if self.count == 1:
            return
        if device == "mps" or (device == "cuda" and torch.cuda.device_count() < self.local_count):
            available = torch.cuda.device_count() if device == "cuda" else 1
            raise ConfigError(
                f"launch.processes is {self.local_count}, and this machine has {available} GPU(s). Set it to that "
                "number or less."
            )
        if device == "cuda":
            torch.cuda.set_device(self.local_rank)
        distributed.init_process_group("cuda:nccl,cpu:gloo" if device == "cuda" else "gloo", timeout=PATIENCE)

    def leave(self) -> None:
        """Leave the group, at the same time as the others.

        A failing process doesn't leave: the others notice when its connection closes, after it has reported its error.
        """
        if self.count > 1:
            distributed.destroy_process_group()

    def agree(self, choice: bool) -> bool:
        """The first process's choice, in all of them."""
        if self.count == 1:
            return choice
        chosen = torch.tensor(int(choice))
        distributed.broadcast(chosen, src=0)
        return bool(chosen)

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """These values of every process by rank, in the first process; its own alone in the others. On the CPU."""
        if self.count == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.count)] if self.is_first else None
        distributed.gather(values, parts, dst=0)
        return parts or [values]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of these values, without gradients, over all processes."""
        values = values.detach()
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values


def this_process() -> Processes:
    """This process's rank and count from torchrun's environment variables."""
    if not distributed.is_torchelastic_launched():
        return Processes()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Processes(*(int(os.environ[name]) for name in names))
