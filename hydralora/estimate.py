"""How long a run will take, before it starts: the machine's measured speed and the run's arithmetic."""

import time
from functools import cache

import torch

FORWARD_BACKWARD = 4.3  # flop per parameter and token: forward 2, gradient to the inputs 2, adapter about 0.3
EFFICIENCY = 0.6  # share of a plain matrix product's speed that a training step reaches on a CPU


def training_seconds(parameters: int, tokens_per_step: float, steps: int) -> float:
    """Seconds that `steps` take on this machine's CPU, for a base model of so many parameters."""
    return FORWARD_BACKWARD * parameters * tokens_per_step * steps / (EFFICIENCY * cpu_flops())


@cache
def cpu_flops() -> float:
    """Float32 operations a second of a matrix product of a small model's size, measured once (about 0.2 s)."""
    a, b = torch.randn(512, 576), torch.randn(576, 1536)
    a @ b
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.2:
        a @ b
        runs += 1
    return runs * 2 * 512 * 576 * 1536 / (time.perf_counter() - start)
