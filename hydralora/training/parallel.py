"""The processes that train one adapter together: which of them this one is, and what they tell each other."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from hydralora.errors import ConfigError

PATIENCE = timedelta(days=365)  # others wait while the first process evaluates; a death shows in the connection at once


@dataclass(frozen=True)
class Processes:
    """This process's place among those of its run, as the launcher set it; one that is alone is the first of one."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that evaluates, reports and writes."""
        return self.rank == 0

    def connect(self, wanted: int, device: str) -> None:
        """Join the others; on a GPU, take the one with this process's number.

        Raises:
            ConfigError: there are not as many processes as `wanted`, or not a device for each.
        """
        if self.count != wanted:
            raise ConfigError(
                f"launch.processes is {wanted}, and this run has {self.count} process(es). "
                "Start it with `hydralora train` or in the app, or set launch.processes=1."
            )
        if self.count == 1:
            return
        if device == "mps" or (device == "cuda" and torch.cuda.device_count() < self.count):
            available = torch.cuda.device_count() if device == "cuda" else 1
            raise ConfigError(
                f"launch.processes is {wanted}, and this machine has {available} GPU(s). Lower it to that."
            )
        if device == "cuda":
            torch.cuda.set_device(self.rank)
        distributed.init_process_group("cuda:nccl,cpu:gloo" if device == "cuda" else "gloo", timeout=PATIENCE)

    def leave(self) -> None:
        """Part from the others, who do so at the same time.

        A process that fails doesn't leave: the others learn of it when its connection breaks, after it has said why.
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

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of these values, without gradients, over all processes."""
        values = values.detach()
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values


def this_process() -> Processes:
    """From what torchrun says in the environment."""
    if not distributed.is_torchelastic_launched():
        return Processes()
    return Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
