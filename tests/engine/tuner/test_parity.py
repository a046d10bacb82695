"""Equality with the published code, by tensors that it wrote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from hydralora import HydraLoraConfig, ModelError, load_official
from hydralora.tuner.layer import HydraLoraLayer

FIXTURES = Path(__file__).parents[2] / "fixtures"
TINY_LLAMA = FIXTURES / "tiny_llama"
Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float64, 0), (torch.float32, 1e-6)],  # a gradient of 39 has float32 neighbours 4e-6 apart
)
@pytest.mark.parametrize("path", sorted(FIXTURES.glob("layer_*.safetensors")), ids=lambda path: path.stem)
def test_a_layer_equals_the_published_one(path: Path, dtype: torch.dtype, rtol: float) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    known = {key: value.to(dtype) for key, value in load_file(path).items()}
    r, num_heads = int(metadata["r"]), int(metadata["lora_nums"])
    base = nn.Linear(known["x"].shape[-1], known["y"].shape[-1], bias="base.bias" in known, dtype=dtype)
    base.load_state_dict({key.removeprefix("base."): known[key] for key in known if key.startswith("base.")})
    config = HydraLoraConfig(r=r, num_heads=num_heads, lora_alpha=float(metadata["lora_alpha"]), router_input="hidden")
    layer = HydraLoraLayer(base, "default", config).to(dtype)
    a: Any = layer.hydra_A["default"]
    router: Any = layer.hydra_router["default"]
    heads = layer.hydra_B["default"]
    with torch.no_grad():
        a.weight.copy_(known["lora_A.weight"])
        router.weight.copy_(known["lora_route.weight"])
        heads.copy_(torch.stack([known[f"lora_B{i}.weight"].T for i in range(num_heads)]))

    x = known["x"].requires_grad_()
    y = layer(x)
    y.backward(known["grad_y"])

    found = {
        "y": y,
        "grad.x": x.grad,
        "grad.lora_A.weight": a.weight.grad,
        "grad.lora_route.weight": router.weight.grad,
    }
    found |= {f"grad.lora_B{i}.weight": heads.grad[i].T for i in range(num_heads)}
    assert set(found) == {key for key in known if key == "y" or key.startswith("grad.")}
    for key, value in found.items():
        torch.testing.assert_close(value, known[key], atol=1e-5, rtol=rtol, msg=f"{key} differs")


@pytest.fixture
def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(TINY_LLAMA / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return shutil.copytree(TINY_LLAMA / "official_adapter", tmp_path / "adapter")


@pytest.fixture
def as_safetensors(adapter: Path) -> Callable[[Weights], Path]:
    """Write weights into the adapter's folder in place of its .bin."""

    def write(weights: Weights) -> Path:
        (adapter / "adapter_model.bin").unlink(missing_ok=True)
        save_file({key: value.contiguous() for key, value in weights.items()}, adapter / "adapter_model.safetensors")
        return adapter

    return write


@pytest.fixture
def weights(adapter: Path) -> Weights:
    return torch.load(adapter / "adapter_model.bin", weights_only=True)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_a_published_adapter_gives_its_logits(
    suffix: str, base: Any, adapter: Path, weights: Weights, as_safetensors: Callable[[Weights], Path]
) -> None:
    expected = load_file(TINY_LLAMA / "expected.safetensors")
    folder = adapter if suffix == "bin" else as_safetensors(weights)
    torch.testing.assert_close(base(expected["input_ids"]).logits, expected["base_logits"], atol=1e-4, rtol=0)
    model = load_official(base, folder)
    torch.testing.assert_close(model(expected["input_ids"]).logits, expected["adapted_logits"], atol=1e-4, rtol=0)
    assert not torch.allclose(expected["base_logits"], expected["adapted_logits"], atol=1e-2)


class Payload:
    """What a hostile pickle holds: unpickling it calls `Path.touch` on a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_holds_code_is_refused_and_does_not_run(base: Any, adapter: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"weight": Payload(marker)}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.bin"):
        load_official(base, adapter)
    assert not marker.exists()
    torch.load(adapter / "adapter_model.bin", weights_only=False)  # the payload works where it is let run
    assert marker.exists()


def test_a_missing_weight_is_named(base: Any, weights: Weights, as_safetensors: Callable[[Weights], Path]) -> None:
    gone = next(key for key in weights if key.endswith("lora_B1.weight"))
    del weights[gone]
    with pytest.raises(ModelError, match=gone):
        load_official(base, as_safetensors(weights))


def test_a_weight_too_many_is_named(base: Any, weights: Weights, as_safetensors: Callable[[Weights], Path]) -> None:
    weights["base_model.model.model.layers.7.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 48)
    with pytest.raises(ModelError, match=r"layers\.7\.mlp\.up_proj"):
        load_official(base, as_safetensors(weights))


@pytest.mark.parametrize("part", ["lora_A", "lora_B2", "lora_route"])
def test_a_weight_of_another_shape_is_refused(
    part: str, base: Any, weights: Weights, as_safetensors: Callable[[Weights], Path]
) -> None:
    for key in weights:
        if part in key:
            weights[key] = torch.zeros(weights[key].shape[0] + 1, weights[key].shape[1])
    with pytest.raises(ModelError, match="expects"):
        load_official(base, as_safetensors(weights))


@pytest.mark.parametrize("config", ["", "[1, 2]", "7", '{"r": 4}'])
def test_a_folder_in_another_format_is_refused(config: str, base: Any, adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        load_official(base, adapter)


@pytest.mark.parametrize("value", [[1, 2], {"weight": "text"}, torch.zeros(3)], ids=["list", "text", "tensor"])
def test_a_bin_that_holds_no_weights_is_refused(value: Any, base: Any, adapter: Path) -> None:
    torch.save(value, adapter / "adapter_model.bin")
    with pytest.raises(ModelError):
        load_official(base, adapter)


def test_an_empty_folder_is_refused(base: Any, adapter: Path) -> None:
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.bin"):
        load_official(base, adapter)


def test_the_adapter_of_another_base_model_is_refused(adapter: Path) -> None:
    settings = json.loads((TINY_LLAMA / "base" / "config.json").read_text(encoding="utf-8"))
    from transformers import LlamaConfig, LlamaForCausalLM

    wider = LlamaForCausalLM(LlamaConfig(**settings | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match="another base model"):
        load_official(wider, adapter)
