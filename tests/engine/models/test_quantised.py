"""A base model in 4 bits: loaded, trained on, and found again by a run's recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hydralora.models.loading
from hydralora import ModelError, RunStore, train
from hydralora.inference.generation import Sampling, generate
from hydralora.inference.model_cache import load_run
from hydralora.models.adapters import load_adapted
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_base
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event, TrainEvent
from hydralora.training.monitor import Monitor
from hydralora.tuner.model import count_parameters, hydra_layers
from tests.known import known, loss_of
from tests.tiny_model import adapt

bitsandbytes = pytest.importorskip("bitsandbytes")

Make = Callable[..., Recipe]


def in_four_bits(model: Any) -> list[str]:
    """Names of the layers that bitsandbytes keeps."""
    return [name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


@torch.no_grad()
def test_a_base_model_is_loaded_in_four_bits(model_folder: Path, ids: torch.Tensor) -> None:
    files = find_model(str(model_folder))
    plain, packed = load_base(files, "cpu"), load_base(files, "cpu", "nf4")
    assert not in_four_bits(plain)
    assert len(in_four_bits(packed)) == 2 * 7  # the blocks' linear layers, not the output layer
    assert {module.compute_dtype for module in packed.modules() if hasattr(module, "compute_dtype")} == {torch.float32}
    wanted, found = plain(ids).logits, packed(ids).logits
    assert (found.dtype, packed.training) == (torch.float32, False)
    assert not torch.equal(found, wanted)
    assert (found - wanted).norm() < 0.35 * wanted.norm()  # 4 bits are near, but not the same
    assert torch.equal(load_base(files, "cpu", "nf4")(ids).logits, found)


def test_without_the_library_the_extra_is_named(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydralora.models.loading, "find_spec", lambda name: None)
    files = find_model(str(model_folder))
    with pytest.raises(ModelError, match=r"bitsandbytes.*pip install \.\[quant\].*quantization to none"):
        load_base(files, "cpu", "nf4")
    assert load_base(files, "cpu") is not None


def test_a_fresh_adapter_changes_no_bit_and_is_counted_as_ever(model_folder: Path, ids: torch.Tensor) -> None:
    files = find_model(str(model_folder))
    base = load_base(files, "cpu", "nf4")(ids).logits
    model = adapt(load_base(files, "cpu", "nf4"), target_modules=None)
    assert torch.equal(model(ids).logits, base)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert count_parameters(model) == count_parameters(adapt(load_base(files, "cpu"), target_modules=None))


@pytest.mark.parametrize("method", ["hydralora", "lora"])
def test_a_run_trains_saves_and_answers_alike_when_loaded_again(
    method: str, make_recipe: Make, tmp_path: Path, tokenizer: Any, ids: torch.Tensor
) -> None:
    recipe = make_recipe(method, max_steps=12, learning_rate=1e-2, gradient_checkpointing=True)
    recipe.quantization = "nf4"
    events: list[Event] = []
    run = RunStore(tmp_path).create(recipe)
    results = train(recipe, run.adapter, Monitor(on_event=events.append))
    losses = [known(event.loss) for event in events if isinstance(event, TrainEvent)]
    assert losses[-1] < 0.95 * losses[0]
    assert loss_of(results.tuned) < loss_of(results.base)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert weights
    assert all("hydra_" in name or "lora_" in name for name in weights)
    assert {value.dtype for value in weights.values()} == {torch.float32}

    files = find_model(recipe.model)
    loaded = load_run(run).model
    assert len(in_four_bits(loaded)) == 2 * 7
    assert bool(hydra_layers(loaded)) == (method == "hydralora")
    again = load_adapted(files, run.adapter, "cpu", "nf4")
    plain = load_adapted(files, run.adapter, "cpu")
    with torch.no_grad():
        assert torch.equal(again(ids).logits, loaded(ids).logits)
        assert not torch.equal(plain(ids).logits, loaded(ids).logits)
    tokens = list(generate(loaded, tokenizer, [{"role": "user", "content": "hi"}], Sampling(max_new_tokens=3)))
    assert tokens


def test_the_loaded_run_scores_as_the_training_measured(make_recipe: Make, tmp_path: Path) -> None:
    from hydralora.inference.evaluation import evaluate
    from hydralora.training.preparation import prepare

    recipe = make_recipe(max_steps=4, learning_rate=1e-2)
    recipe.quantization = "nf4"
    results = train(recipe, tmp_path)
    prepared = prepare(recipe, lambda stage: None)
    model = load_adapted(prepared.files, tmp_path, "cpu", "nf4")
    assert evaluate(model, prepared.heldout, 0).loss == pytest.approx(loss_of(results.tuned), abs=1e-6)
