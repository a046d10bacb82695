"""An estimate of a run's duration from the machine's measured speed and the run's number of operations."""

import math
import time
from functools import cache
from threading import Lock
from typing import Any

import torch

from hydralora.components.rows import read_split
from hydralora.data.encoding import encode
from hydralora.errors import ModelError
from hydralora.models.catalogue import find_model
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import load_tokenizer, weight_parameters
from hydralora.recipe.settings import Recipe
from hydralora.training.monitor import LIVE_ROWS
from hydralora.tuner.component_rows import ROWS_PER_COMPONENT
from hydralora.tuner.mixtures import BUDGET, ROWS

FORWARD = 2.0  # flop per parameter and token
FORWARD_BACKWARD = 4.3  # forward 2, gradient to the inputs 2, adapter about 0.3
ALL_WEIGHTS = 6.0  # forward 2, gradients to the inputs and to the weights 2 each
EFFICIENCY = 0.5  # a model's speed on a CPU as a share of a plain matrix product's
SAMPLE = 40  # rows whose tokens are counted
_measuring = Lock()
LOADING = 15.0  # seconds to start the process, import and load


def run_seconds(recipe: Recipe, base_known: bool = False) -> float | None:
    """Seconds that a run takes on this machine's CPU; None if its base model is not on this machine.

    Args:
        base_known: whether the base model's scores are known from another run on the same rows.

    Raises:
        HydraError: the data can't be used.
    """
    try:
        files = find_model(recipe.model, download=False)
    except ModelError:
        return None
    anyhow = recipe.data.model_copy(update={"stratify": "none"})  # how many rows there are doesn't depend on it
    rows = read_split(recipe.model_copy(update={"data": anyhow}))
    train, heldout = rows.train, rows.heldout
    tokenizer = _tokenizer(files)
    sample = train[:: max(1, len(train) // SAMPLE)][:SAMPLE]
    tokens = sum(len(row.input_ids) for example in sample for row in encode(tokenizer, example)) / len(sample)
    virtual = recipe.tuner.virtual_tokens if recipe.method in ("prompt-tuning", "p-tuning") else 0
    trained = ALL_WEIGHTS if recipe.method == "full" else FORWARD_BACKWARD
    settings = recipe.training
    rows_per_step = settings.batch_size * settings.gradient_accumulation * recipe.launch.all_processes
    steps = settings.max_steps or round((settings.epochs or 1) * len(train) / rows_per_step)
    live = steps // settings.eval_every * LIVE_ROWS if settings.eval_every else 0
    started = 2 * ROWS_PER_COMPONENT * (recipe.tuner.num_heads or 4) if recipe.starts_from_components else 0
    evaluations = 2 - base_known + recipe.has_heads  # before, after, and the heads' gates
    mixed = BUDGET * ROWS * (recipe.tuner.num_heads or 4) if recipe.method == "lorahub" else 0
    forward_rows = evaluations * len(heldout) + live + started + mixed
    work = trained * rows_per_step * steps + FORWARD * forward_rows
    return LOADING + work * (tokens + virtual) * weight_parameters(files) / (EFFICIENCY * cpu_flops())


def cpu_flops() -> float:
    """Float32 operations a second of a matrix product of a small model's size, measured once (about 0.2 s).

    The fastest of many, so that another process's short burst doesn't count as the machine's speed.
    """
    with _measuring:  # estimates that are shown beside one another rest on one measurement
        return _measured_flops()


@cache
def _measured_flops() -> float:
    a, b = torch.randn(512, 576), torch.randn(576, 1536)
    fastest, until = math.inf, time.perf_counter() + 0.2
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.matmul(a, b)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * 512 * 576 * 1536 / fastest


@cache
def _tokenizer(files: BaseModelFiles) -> Any:
    return load_tokenizer(files)
