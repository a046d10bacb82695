"""Saving in the published format: what `load_official` and the published code read back is what was there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from hydralora import ConfigError, HydraLoraConfig, ModelError, load_official, save_official
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import adapt, shake, tiny_gpt2, tiny_llama

TINY_LLAMA = Path(__file__).parents[2] / "fixtures" / "tiny_llama"
FILES = {"adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"}
Weights = dict[str, torch.Tensor]


def published(model: Any = None, **settings: Any) -> Any:
    """A random adapter of the only kind that the published format holds."""
    return shake(adapt(model or tiny_llama(), router_input="hidden", **settings))


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))


def both_files(folder: Path) -> tuple[Weights, Weights]:
    pickled = torch.load(folder / "adapter_model.bin", weights_only=True)
    return pickled, load_file(folder / "adapter_model.safetensors")


def assert_equal(found: Weights, wanted: Weights) -> None:
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


class PublishedLinear(nn.Module):
    """A layer of the published code: one head after the other."""

    def __init__(self, base: nn.Module, weights: Weights, name: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.base = base
        self.scaling = settings["lora_alpha"] / settings["r"]
        self.a, self.route = weights.pop(f"{name}.lora_A.weight"), weights.pop(f"{name}.lora_route.weight")
        self.heads = [weights.pop(f"{name}.lora_B{i}.weight") for i in range(settings["lora_nums"])]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = (x @ self.route.T).softmax(-1)
        result = self.base(x)
        for i, head in enumerate(self.heads):
            result = result + gates[..., i, None] * (x @ self.a.T @ head.T) * self.scaling
        return result


def read_as_the_published_code(model: nn.Module, folder: Path) -> Any:
    """By its own rules: the .bin, and layers whose names end with a target, or match it in full."""
    settings = settings_of(folder)
    targets = settings["target_modules"]
    assert settings["peft_type"] == "LORA"
    pickled = torch.load(folder / "adapter_model.bin", weights_only=True)
    assert all(key.startswith("base_model.model.") for key in pickled)
    weights = {key.removeprefix("base_model.model."): value for key, value in pickled.items()}
    for name in [name for name, _ in model.named_modules()]:
        if re.fullmatch(targets, name) if isinstance(targets, str) else any(map(name.endswith, targets)):
            parent, _, last = name.rpartition(".")
            layer = PublishedLinear(model.get_submodule(name), weights, name, settings)
            setattr(model.get_submodule(parent), last, layer)
    assert not weights
    return model


def test_the_published_adapter_is_saved_as_it_was(tmp_path: Path) -> None:
    original = TINY_LLAMA / "official_adapter"
    base = AutoModelForCausalLM.from_pretrained(TINY_LLAMA / "base")
    save_official(load_official(base, original), tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES
    wanted = torch.load(original / "adapter_model.bin", weights_only=True)
    for found in both_files(tmp_path / "again"):
        assert_equal(found, wanted)
    first, again = settings_of(original), settings_of(tmp_path / "again")
    assert first.pop("base_model_name_or_path") != again.pop("base_model_name_or_path")
    assert again == first
    assert [type(again[key]) for key in first] == [type(first[key]) for key in first]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_heads": 3},
        {"num_heads": 1, "r": 3},
        {"lora_alpha": 6.7, "lora_dropout": 0.1},
        {"top_k": 3, "head_dropout": 0.2, "balance_weight": 0.1},  # all heads kept; the others matter in training only
        {"target_modules": r".*\.(0|1)\..*(q|down)_proj"},
        {"target_modules": "all-linear"},
        {"exclude_modules": ["model.layers.0.mlp.up_proj"]},
        {"layers_to_transform": [1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@torch.no_grad()
def test_the_round_trip_is_exact(suffix: str, settings: dict[str, Any], tmp_path: Path, ids: torch.Tensor) -> None:
    model = published(**settings)
    save_official(model, tmp_path)
    for path in tmp_path.glob("adapter_model.*"):
        if path.suffix != f".{suffix}":
            path.unlink()
    again = load_official(tiny_llama(), tmp_path)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert_equal(again.state_dict(), model.state_dict())
    assert not torch.allclose(model(ids).logits, tiny_llama()(ids).logits, atol=1e-2)


@pytest.mark.parametrize(
    "settings", [{}, {"exclude_modules": ["gate_proj"]}, {"layers_to_transform": [1]}, {"lora_alpha": 6.7}], ids=str
)
@torch.no_grad()
def test_the_published_code_reads_it(settings: dict[str, Any], tmp_path: Path, ids: torch.Tensor) -> None:
    model = published(**settings)
    save_official(model, tmp_path)
    theirs = read_as_the_published_code(tiny_llama(), tmp_path)
    torch.testing.assert_close(theirs(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_ending_that_selects_more_by_the_published_rule_becomes_a_regex(tmp_path: Path, ids: torch.Tensor) -> None:
    def with_a_longer_name() -> Any:
        model = tiny_llama()
        for block in model.model.layers:
            block.mlp.gate_up_proj = nn.Linear(4, 4)
        return model

    model = published(with_a_longer_name(), target_modules=["up_proj"])
    save_official(model, tmp_path)
    assert isinstance(settings_of(tmp_path)["target_modules"], str)
    theirs = read_as_the_published_code(with_a_longer_name(), tmp_path)
    torch.testing.assert_close(theirs(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("targets", [r".*\.mlp\..*_proj.*", r".*\.(q|v)_proj"])
def test_a_regex_that_selects_the_same_layers_stays(targets: str, tmp_path: Path) -> None:
    save_official(published(target_modules=targets), tmp_path)
    assert settings_of(tmp_path)["target_modules"] == targets


@torch.no_grad()
def test_conv1d_layers_and_bfloat16_come_back(tmp_path: Path, ids: torch.Tensor) -> None:
    model = published(tiny_gpt2(), target_modules=["c_attn", "c_fc"]).to(torch.bfloat16)
    save_official(model, tmp_path)
    assert {value.dtype for weights in both_files(tmp_path) for value in weights.values()} == {torch.bfloat16}
    again = load_official(tiny_gpt2(), tmp_path).to(torch.bfloat16)
    assert torch.equal(again(ids).logits, model(ids).logits)


@torch.no_grad()
def test_the_active_adapter_is_the_one_saved(tmp_path: Path, ids: torch.Tensor) -> None:
    model = published()
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, router_input="hidden", target_modules=["q_proj"]))
    shake(model, seed=2).set_adapter("second")
    save_official(model, tmp_path)
    assert (settings_of(tmp_path)["lora_nums"], settings_of(tmp_path)["target_modules"]) == (5, ["q_proj"])
    assert torch.equal(load_official(tiny_llama(), tmp_path)(ids).logits, model(ids).logits)


def test_no_adapter_and_two_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 HydraLoRA adapters are active"):
        save_official(tiny_llama(), tmp_path / "adapter")
    model = published(target_modules=["up_proj"])
    model.add_adapter("second", HydraLoraConfig(router_input="hidden", target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ConfigError, match="2 HydraLoRA adapters are active"):
        save_official(model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ({"router_input": "latent"}, "router_input='hidden'"),
        ({"router": "uniform"}, "router='softmax'"),
        ({"shared_A": False}, "shared_A=True"),
        ({"router_bias": True}, "router_bias=False"),
        ({"router_init": "components"}, "router_bias=False"),
        ({"top_k": 2}, "top_k=None"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=None"),
        ({"use_rslora": True}, "use_rslora=False"),
        ({"rank_pattern": {"up_proj": 2}}, "rank_pattern={}"),
        ({"alpha_pattern": {"up_proj": 2}}, "alpha_pattern={}"),
    ],
    ids=str,
)
def test_what_the_format_cannot_hold_is_refused_by_name(wrong: dict[str, Any], fix: str, tmp_path: Path) -> None:
    model = adapt(tiny_llama(), **{"router_input": "hidden"} | wrong)
    with pytest.raises(ConfigError, match=rf"published format can't hold.*Train with {re.escape(fix)}"):
        save_official(model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def test_an_adapter_of_this_tuner_is_never_overwritten(tmp_path: Path) -> None:
    model = published()
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="would be lost"):
        save_official(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saving_again_replaces_its_own_files_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "adapter"
    save_official(published(num_heads=2), folder)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    save_official(published(num_heads=4), folder)
    assert {path.name for path in folder.iterdir()} == FILES | {"notes.txt"}
    assert settings_of(folder)["lora_nums"] == 4
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "adapter"
    save_official(published(num_heads=2), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hydralora.tuner.published.save_file", full)
    with pytest.raises(ModelError, match="No space left"):
        save_official(published(num_heads=4), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter").write_text("a file", encoding="utf-8")
    with pytest.raises(ModelError, match="adapter: can't be written"):
        save_official(published(), tmp_path / "adapter")
    assert (tmp_path / "adapter").read_text(encoding="utf-8") == "a file"
    assert len(list(tmp_path.iterdir())) == 1


def test_modules_to_save_in_a_published_config_are_refused(tmp_path: Path) -> None:
    save_official(published(), tmp_path)
    settings = settings_of(tmp_path) | {"modules_to_save": ["lm_head"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ModelError, match=r"modules_to_save is \['lm_head'\]"):
        load_official(tiny_llama(), tmp_path)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    model = published().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_official(model, tmp_path)
    assert_equal(model.state_dict(), before)
    assert model.training
    assert all(layer.active_adapters == ["default"] for layer in hydra_layers(model).values())
