"""The size of an adapter, against the command that counts it and the adapter itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.errors import ConfigError
from hydralora.recipe.settings import Recipe
from hydralora.training.sizes import adapter_size, equal_rank
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import MLP, adapt, tiny_llama


@pytest.mark.parametrize(("r", "heads"), [(1, 1), (4, 3), (16, 8)])
@pytest.mark.parametrize("method", ["hydralora", "lora", "lora-split", "uniform"])
def test_it_counts_what_the_command_counts(
    make_recipe: Callable[..., Recipe], model_folder: Path, method: str, r: int, heads: int
) -> None:
    size = adapter_size(
        make_recipe(method, tuner={"r": r, "num_heads": heads, "router_input": "latent", "router_init": "random"}), 1
    )
    command = ["params", str(model_folder), "--r", str(r), "--heads", str(heads), "--method", method, "--json"]
    printed = json.loads(CliRunner().invoke(app, command).stdout)
    counts = size.counts
    assert (counts.base, counts.adapter, counts.router, counts.total) == tuple(
        printed[name] for name in ("base", "adapter", "router", "total")
    )
    assert size.a + size.heads == counts.adapter
    assert size.weight_bytes == 4 * counts.total
    assert size.optimiser_bytes == 8 * counts.total


def test_a_and_heads_are_those_of_a_real_adapter(make_recipe: Callable[..., Recipe]) -> None:
    model = adapt(tiny_llama(), r=4, num_heads=3, target_modules=MLP)
    layers = hydra_layers(model).values()
    size = adapter_size(make_recipe(tuner={"r": 4, "num_heads": None}), 3)
    assert size.a == sum(part.numel() for layer in layers for part in layer.hydra_A.parameters())
    assert size.heads == sum(part.numel() for layer in layers for part in layer.hydra_B.parameters())


def test_the_equal_lora_is_the_smallest_that_is_not_smaller(make_recipe: Callable[..., Recipe]) -> None:
    target = adapter_size(make_recipe(tuner={"r": 4, "num_heads": 3}), 1).counts.total
    per_rank = adapter_size(make_recipe("lora", tuner={"r": 1}), 1).counts.total
    rank = equal_rank(target, per_rank)
    total = adapter_size(make_recipe("lora", tuner={"r": rank}), 1).counts.total
    assert total >= target > adapter_size(make_recipe("lora", tuner={"r": rank - 1}), 1).counts.total


def test_layers_that_the_model_lacks_are_refused(make_recipe: Callable[..., Recipe]) -> None:
    for method in ("hydralora", "lora"):
        with pytest.raises(ConfigError):
            adapter_size(make_recipe(method, tuner={"target_modules": ["no_such_layer"]}), 2)
