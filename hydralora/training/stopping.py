"""Stopping a training at once: within a forward or a backward pass, with the last finished step intact."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hydralora.training.parallel import Processes


class StopRequestedError(Exception):
    """The monitor requested a stop."""


def check_in_blocks(model: nn.Module, check: Callable[[], None]) -> None:
    """Call `check` before every block of a model's forward pass, and before every block of its backward pass.

    An exception that it raises ends the pass. A pass of the whole model may take many seconds on a CPU, and a block
    is its largest part that is alike in all architectures.
    """
    for block in _blocks(model):
        block.register_forward_pre_hook(lambda module, inputs: check())
        block.register_forward_hook(lambda module, inputs, output: _check_backward(output, check))


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists of modules: a decoder's layers, but not the experts in them."""
    blocks: list[nn.Module] = []
    for child in model.children():
        blocks += list(child) if isinstance(child, nn.ModuleList) else _blocks(child)
    return blocks


def _check_backward(output: object, check: Callable[[], None]) -> None:
    hidden = output[0] if isinstance(output, tuple) else output
    if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
        hidden.register_hook(lambda gradient: check())


@dataclass(frozen=True)
class RandomState:
    """The state of torch's random numbers: of the CPU, and of this process's GPU if it has one."""

    cpu: torch.Tensor
    cuda: torch.Tensor | None = None

    @classmethod
    def now(cls) -> "RandomState":
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)

    def of_all(self, processes: Processes) -> "list[RandomState]":
        """The states of all processes by rank, in the first of them; its own alone in the others."""
        cpus = processes.gather(self.cpu)
        cudas = [None] * len(cpus) if self.cuda is None else processes.gather(self.cuda)
        return [RandomState(*pair) for pair in zip(cpus, cudas, strict=True)]


class LastStep(TrainerCallback):
    """Keeps the random numbers' state at the end of the newest finished step: an abandoned step uses up some of them.

    Attributes:
        states: of each process by rank; empty before the first step of this process.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.states: list[RandomState] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        self.states = RandomState.now().of_all(self.processes)


class StopOnRequest(TrainerCallback):
    """Ends the training after a step, in all processes, with a checkpoint if there is a folder for it.

    Where a step can't be abandoned, this is the only stop; elsewhere it catches a request between two steps.
    """

    def __init__(self, processes: Processes, should_stop: Callable[[], bool], saves: bool) -> None:
        self.processes = processes
        self.should_stop = should_stop
        self.saves = saves

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        if self.processes.agree(self.should_stop()):
            control.should_training_stop = True
            control.should_save = self.saves
