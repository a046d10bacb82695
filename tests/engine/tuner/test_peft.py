"""The tuner as PEFT and transformers use it: save, load, switch, and choose layers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from hydralora import HydraLoraConfig
from hydralora.tuner.model import count_parameters, hydra_layers
from tests.tiny_model import adapt, shake, tiny_gpt2, tiny_llama, write_tiny_model

FRESH_PROCESS = """
import sys, torch
import hydralora
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

base, adapter, ids, out = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
with torch.no_grad():
    save_file({"logits": model(load_file(ids)["ids"]).logits}, out)
"""


@pytest.mark.slow
def test_save_and_load_in_a_fresh_process_is_exact(tmp_path: Path, model_folder: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=4, router_input="hidden", router_init="components"))
    model.save_pretrained(tmp_path / "adapter")
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    files = [str(model_folder), *(str(tmp_path / name) for name in ("adapter", "ids.safetensors", "out.safetensors"))]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *files], check=True, capture_output=True)
    with torch.no_grad():
        assert torch.equal(load_file(files[-1])["logits"], model(ids).logits)


def test_only_the_adapter_is_saved(tmp_path: Path) -> None:
    adapt(tiny_llama()).save_pretrained(tmp_path)
    assert all("hydra_" in key for key in load_file(tmp_path / "adapter_model.safetensors"))


@torch.no_grad()
def test_disable_adapter_is_the_base_bit_for_bit(ids: torch.Tensor) -> None:
    base, model = tiny_llama()(ids).logits, shake(adapt(tiny_llama()))
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, base)
    assert not torch.equal(model(ids).logits, base)


@torch.no_grad()
def test_adapters_are_added_switched_and_deleted(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()), seed=1)
    first = model(ids).logits
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj", "q_proj"]))
    assert torch.equal(model(ids).logits, first)
    model.set_adapter("second")
    assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)
    model.set_adapter("default")
    assert torch.equal(model(ids).logits, first)
    model.delete_adapter("second")
    assert torch.equal(model(ids).logits, first)
    assert not any("second" in name for name, _ in model.named_parameters())


def three_adapters() -> Any:
    """Adapters of unlike shapes on overlapping layers, each shaken in its own way; the first is active."""
    model = shake(adapt(tiny_llama()), seed=1)
    settings: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj", "q_proj"], **settings))
    model.add_adapter("third", HydraLoraConfig(r=3, num_heads=2, shared_A=False, router_bias=True, **settings))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hydra_" in name and "default" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


@torch.no_grad()
def outputs(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits under each adapter by name, and under none."""
    found = {}
    for name in sorted(model.peft_config):
        model.set_adapter(name)
        found[name] = model(ids).logits
    with model.disable_adapter():
        found["none"] = model(ids).logits
    return found


def test_adapters_side_by_side_answer_each_in_its_own_way(ids: torch.Tensor) -> None:
    found = outputs(three_adapters(), ids)
    assert torch.equal(found.pop("none"), tiny_llama()(ids).logits)
    assert torch.equal(found["default"], shake(adapt(tiny_llama()), seed=1)(ids).logits)
    names = sorted(found)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert not torch.allclose(found[name], found[other], atol=1e-2), (name, other)


def test_adapters_are_saved_and_loaded_by_name(tmp_path: Path, ids: torch.Tensor) -> None:
    model = three_adapters()
    wanted = outputs(model, ids)
    model.save_pretrained(tmp_path, selected_adapters=["second", "third"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["second", "third"]
    assert not (tmp_path / "adapter_model.safetensors").exists()  # where the one named default would be
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "third"), adapter_name="third").eval()
    again.load_adapter(str(tmp_path / "second"), "second")
    assert torch.equal(again(ids).logits, wanted["third"])
    found = outputs(again.eval(), ids)
    assert sorted(found) == ["none", "second", "third"]
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


@torch.no_grad()
def test_deleting_an_adapter_leaves_the_others(ids: torch.Tensor) -> None:
    model = three_adapters()
    wanted = outputs(model, ids)
    model.set_adapter("third")
    model.delete_adapter("second")
    assert torch.equal(model(ids).logits, wanted["third"])
    assert {name for layer in hydra_layers(model).values() for name in layer.adapters} == {"default", "third"}
    model.set_adapter("default")
    model.delete_adapter("third")
    found = outputs(model, ids)
    assert torch.equal(found["default"], wanted["default"])
    assert torch.equal(found["none"], wanted["none"])
    assert not any("second" in name or "third" in name for name in model.state_dict())


def test_a_loaded_adapter_trains_on(tmp_path: Path, ids: torch.Tensor) -> None:
    shake(adapt(tiny_llama())).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(tiny_llama(), str(tmp_path), is_trainable=True)
    model(input_ids=ids, labels=ids).loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 6 * 3
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in trained)
    frozen = PeftModel.from_pretrained(tiny_llama(), str(tmp_path))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@torch.no_grad()
def test_loading_without_a_first_copy_is_exact(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), head_init="centred", router_bias=True))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path), low_cpu_mem_usage=True).eval()
    assert not any(parameter.is_meta for parameter in again.parameters())
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_only_the_active_adapter_is_trainable() -> None:
    model = adapt(tiny_llama())
    model.add_adapter("second", HydraLoraConfig(r=2, target_modules=["up_proj"]))
    model.set_adapter("second")
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("hydra_" in name and "second" in name for name in trainable)


@torch.no_grad()
def test_transformers_own_load_adapter(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    model.save_pretrained(tmp_path)
    plain = tiny_llama()
    plain.load_adapter(str(tmp_path))
    assert torch.equal(plain.eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (
            {"layers_to_transform": [1]},
            {"model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"},
        ),
        ({"exclude_modules": ["gate_proj", "down_proj"]}, {"model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"}),
        (
            {"target_modules": r".*0.*(q|v)_proj"},
            {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"},
        ),
    ],
)
def test_layers_are_chosen(settings: dict[str, Any], wanted: set[str]) -> None:
    assert set(hydra_layers(adapt(tiny_llama(), **settings))) == wanted


@torch.no_grad()
def test_modules_to_save_are_trained_and_come_back(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), modules_to_save=["lm_head"]))
    trained = [
        parameter for name, parameter in model.named_parameters() if parameter.requires_grad and "lm_head" in name
    ]
    assert len(trained) == 1
    trained[0].mul_(2)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


@torch.no_grad()
def test_conv1d_layers_of_gpt2(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_gpt2(), target_modules=["c_attn", "c_fc"]))
    assert len(hydra_layers(model)) == 4
    assert not torch.equal(model(ids).logits, tiny_gpt2()(ids).logits)
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(tiny_gpt2(), str(tmp_path)).eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize(("router_input", "bias", "router"), [("latent", False, 4 * 3), ("hidden", True, 48 * 3 + 3)])
def test_parameters_are_counted(router_input: str, bias: bool, router: int) -> None:
    model = adapt(
        tiny_llama(), r=4, num_heads=3, router_input=router_input, router_bias=bias, target_modules=["up_proj"]
    )
    counts = count_parameters(model)
    base = sum(parameter.numel() for parameter in tiny_llama().parameters())
    adapter = 2 * (4 * 48 + 3 * 4 * 80)  # A and the heads in 2 layers
    assert (counts.base, counts.adapter, counts.router) == (base, adapter, 2 * router)
    assert counts.total == adapter + 2 * router
    assert counts.percent == 100 * adapter / base
    assert counts.percent_with_router == 100 * (adapter + 2 * router) / base


def test_a_lora_is_counted_without_a_router() -> None:
    counts = count_parameters(get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["up_proj"])))
    assert (counts.adapter, counts.router) == (2 * 4 * (48 + 80), 0)


def test_a_model_folder_is_what_the_fixture_says(tmp_path: Path, ids: torch.Tensor) -> None:
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path / "model")).eval()
    assert torch.equal(saved(ids).logits, tiny_llama()(ids).logits)
