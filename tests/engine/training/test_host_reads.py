"""A training step asks the device for nothing: what a program reads from a GPU, it must wait for."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from transformers import TrainerCallback

from hydralora.data.encoding import IGNORED, Encoded
from hydralora.data.examples import Example
from hydralora.recipe.settings import TrainingSettings
from hydralora.training.parallel import Processes
from hydralora.training.trainer import GateLosses, answer_trainer, training_arguments
from tests.tiny_architectures import ARCHITECTURES
from tests.tiny_model import adapt, tiny_llama

READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
FIRST, LAST = 2, 4  # steps that are looked at; none of them is logged


class Reads(TorchDispatchMode):
    """Notes each operation whose result, or its shape, has to be known to the program."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in READS or (name == "index" and any(_selects(one) for one in args[1])):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def _selects(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool


class During(TrainerCallback):
    """Is within a context from the beginning of a step to the end of a later one."""

    def __init__(self, context: AbstractContextManager[object]) -> None:
        self.context = context
        self.steps = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == FIRST:
            self.context.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if FIRST < state.global_step <= LAST:
            self.steps += 1
        if state.global_step == LAST:
            self.context.__exit__(None, None, None)


def rows_of_all_lengths() -> list[Encoded]:
    draw = random.Random(0)
    lengths = [draw.randint(8, 20) for _ in range(40)]
    ids = [[draw.randint(5, 200) for _ in range(length)] for length in lengths]
    return [Encoded(row, [IGNORED] * 4 + row[4:], Example(i, ())) for i, row in enumerate(ids)]


def _unseen(collate: Callable[..., Any]) -> Callable[..., Any]:
    """Batches are made on the CPU, beside the device."""

    def make(rows: Any) -> Any:
        with _disable_current_modes():
            return collate(rows)

    return make


def train_during(
    context: AbstractContextManager[object], model: Any, folder: Path, losses: GateLosses, device: str = "cpu"
) -> None:
    settings = TrainingSettings(max_steps=6, batch_size=4, gradient_accumulation=2, log_every=1000)
    during = During(context)
    arguments, rows = training_arguments(settings, folder, device), rows_of_all_lengths()
    trainer = answer_trainer(model.train(), rows, 0, arguments, Processes(), losses, during)
    trainer.data_collator = _unseen(trainer.data_collator)
    trainer.train()
    assert during.steps == LAST - FIRST
    assert trainer.tokens_seen > 6 * 8 * 8


def reads_of(model: Any, folder: Path, losses: GateLosses | None = None) -> list[str]:
    reads = Reads()
    train_during(reads, model, folder, losses or GateLosses())
    return reads.names


@pytest.mark.parametrize("settings", [{}, {"router_input": "hidden"}, {"top_k": 2}, {"lora_dropout": 0.1}], ids=str)
def test_a_step_reads_nothing_back(settings: dict[str, Any], tmp_path: Path) -> None:
    assert reads_of(adapt(tiny_llama(), **settings), tmp_path) == []


def test_losses_on_gates_read_nothing_back(tmp_path: Path) -> None:
    assert reads_of(adapt(tiny_llama()), tmp_path, GateLosses(0.01, 0.01)) == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_architecture_reads_back_for_its_mask(name: str, tmp_path: Path) -> None:
    assert reads_of(adapt(ARCHITECTURES[name].make(), target_modules=None), tmp_path) == []


@contextmanager
def no_waiting() -> Iterator[None]:
    """While it is an error that the program waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("losses", [GateLosses(), GateLosses(0.01, 0.01)])
def test_a_step_never_waits_for_the_gpu(losses: GateLosses, tmp_path: Path) -> None:
    train_during(no_waiting(), adapt(tiny_llama()).cuda(), tmp_path, losses, "cuda")
