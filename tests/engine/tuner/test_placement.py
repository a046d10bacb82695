"""Modules whose parameters are elsewhere, or whose calls others see: offloaded, dispatched, replicated, hooked."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn.parallel import replicate
from transformers import AutoModelForCausalLM

from hydralora import HydraLoraConfig, record_gates
from hydralora.tuner.layer import HydraLoraLayer
from tests.tiny_model import MLP, adapt, shake, tiny_llama

PARTS = ["base_layer", "hydra_A.default", "hydra_router.default", "hydra_B"]


def hydralora() -> Any:
    return shake(adapt(tiny_llama(), router_bias=True))


def lora() -> Any:
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=MLP, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny_llama(), config).eval()


METHODS = pytest.mark.parametrize("make", [hydralora, lora])


def offloaded(model: Any, folder: Path) -> None:
    cpu_offload(model)


def on_disk(model: Any, folder: Path) -> None:
    disk_offload(model, str(folder))


def dispatched(model: Any, folder: Path) -> None:
    """As `device_map` with blocks on the CPU and on the disk does it."""
    inner = "base_model.model.model"
    places = {f"{inner}.{name}": "cpu" for name in ("embed_tokens", "norm", "rotary_emb", "layers.1")}
    places |= {f"{inner}.layers.0": "disk", "base_model.model.lm_head": "cpu"}
    dispatch_model(model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True)


@METHODS
@pytest.mark.parametrize("place", [offloaded, on_disk, dispatched])
@torch.no_grad()
def test_an_offloaded_model_gives_the_same_logits(
    make: Callable[[], Any], place: Callable[[Any, Path], None], tmp_path: Path, ids: torch.Tensor
) -> None:
    model = make()
    wanted, of_one_token = model(ids).logits, model(ids[:, :1]).logits
    place(model, tmp_path)
    block = model.get_base_model().model.layers[0].mlp
    assert all(parameter.is_meta for parameter in block.parameters())  # what is read without a call is nothing
    for batch, logits in ((ids, wanted), (ids[:, :1], of_one_token)):
        torch.testing.assert_close(model(batch).logits, logits, atol=1e-5, rtol=0)


@METHODS
@pytest.mark.filterwarnings("ignore:for base_model.*copying from a non-meta parameter:UserWarning")  # PEFT's loading
@torch.no_grad()
def test_an_adapter_is_loaded_onto_a_base_with_a_device_map(
    make: Callable[[], Any], model_folder: Path, tmp_path: Path, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # PEFT writes what it offloads below the working directory
    places = {f"model.{name}": "cpu" for name in ("embed_tokens", "norm", "rotary_emb", "layers.1")}
    places |= {"model.layers.0": "disk", "lm_head": "cpu"}
    tuned = make()
    tuned.save_pretrained(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(model_folder, device_map=places, offload_folder=str(tmp_path / "base"))
    model: Any = PeftModel.from_pretrained(
        base,
        str(tmp_path / "adapter"),
        device_map={f"base_model.model.{name}": place for name, place in places.items()},
        offload_folder=str(tmp_path / "tuned"),
    ).eval()
    assert all(parameter.is_meta for parameter in model.get_base_model().model.layers[0].mlp.parameters())
    torch.testing.assert_close(model(ids).logits, tuned(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_gates_of_an_offloaded_model_are_recorded(ids: torch.Tensor) -> None:
    model = hydralora()
    with record_gates(model) as record:
        model(ids)
        wanted = record.stacked()
        cpu_offload(model)
        model(ids)
    assert torch.equal(record.stacked(), wanted)


def copies(tensors: list[torch.Tensor], devices: list[int], detach: bool = False) -> list[list[torch.Tensor]]:
    """Stands for the broadcast to GPUs, the only part of `replicate` that needs some: views, as autograd sees them."""
    return [[tensor.view_as(tensor) for tensor in tensors] for _ in devices]


@METHODS
@pytest.mark.parametrize("training", [False, True])
def test_replicas_of_data_parallel_compute_and_learn(
    make: Callable[[], Any], training: bool, monkeypatch: pytest.MonkeyPatch, ids: torch.Tensor
) -> None:
    module = sys.modules["torch.nn.parallel.replicate"]  # `replicate`, as an attribute of its package, is the function
    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", copies)
    monkeypatch.setattr(module, "_get_device_index", lambda device, optional: device)
    model, alone = make().train(training), make().train(training)
    wanted = alone(input_ids=ids, labels=ids)
    wanted.loss.backward()
    outputs = [replica(input_ids=ids, labels=ids) for replica in replicate(model, [0, 1])]
    sum(output.loss for output in outputs).backward()
    for output in outputs:
        torch.testing.assert_close(output.logits, wanted.logits, atol=1e-5, rtol=0)
    learnt = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in alone.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(learnt[name].grad, 2 * parameter.grad, atol=1e-5, rtol=1e-4)


def a_layer() -> HydraLoraLayer:
    torch.manual_seed(0)
    layer = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, num_heads=3, router_bias=True))
    nn.init.normal_(layer.hydra_B["default"])
    return layer


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("tokens", [1, 5])
def test_a_hook_on_a_part_sees_each_call_and_may_change_it(part: str, training: bool, tokens: int) -> None:
    layer, x = a_layer().train(training), torch.randn(tokens, 12)
    plain = layer(x)
    calls: list[None] = []
    module = layer.get_submodule(part)
    before = module.register_forward_pre_hook(lambda module, args: calls.append(None))
    assert torch.allclose(layer(x), plain, atol=1e-6)
    before.remove()
    assert len(calls) == 1
    after = module.register_forward_hook(lambda module, args, output: output * 2)
    changed = layer(x)
    after.remove()
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("training", [False, True])
def test_what_is_put_in_a_parts_place_is_used(part: str, training: bool) -> None:
    class Doubled(nn.Module):
        def __init__(self, inside: Any) -> None:
            super().__init__()
            self.inside = inside

        def __getattr__(self, name: str) -> Any:
            return super().__getattr__(name) if name == "inside" else getattr(self.inside, name)

        def forward(self, *args: Any) -> torch.Tensor:
            return 2 * self.inside(*args)

    layer, x = a_layer().train(training), torch.randn(5, 12)
    hooked = copy.deepcopy(layer)
    hooked.get_submodule(part).register_forward_hook(lambda module, args, output: output * 2)
    layer.set_submodule(part, Doubled(layer.get_submodule(part)))
    assert torch.equal(layer(x), hooked(x))


def test_each_part_is_called_in_training() -> None:
    """With a global hook too, as torch's module tracker has one."""
    layer, x = a_layer(), torch.randn(5, 12)
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(module))
    try:
        layer.train()(x)
        layer.eval()(x)
    finally:
        handle.remove()
    for part in PARTS:
        assert sum(module is layer.get_submodule(part) for module in seen) == 2, part
