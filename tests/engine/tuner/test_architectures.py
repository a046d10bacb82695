"""The default layers of each architecture: adapted, exact, trained, saved, recorded, generated with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn

from hydralora import ConfigError, HydraLoraConfig, generate, record_gates
from hydralora.inference.generation import Sampling
from hydralora.tuner.model import hydra_layers
from hydralora.tuner.targets import adaptable_names, default_targets
from tests.tiny_architectures import ARCHITECTURES, Architecture
from tests.tiny_model import adapt, shake, tiny_llama

MESSAGES = [{"role": "user", "content": "hi"}]
every_architecture = pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
mixtures = pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])


def fresh(family: Architecture, **settings: Any) -> Any:
    """A tiny model with an adapter on its default layers."""
    return adapt(family.make(), target_modules=None, **settings)


@every_architecture
@torch.no_grad()
def test_the_default_layers_are_adapted_and_no_bit_changes(family: Architecture, ids: torch.Tensor) -> None:
    base, model = family.make(), fresh(family)
    assert sorted(hydra_layers(model)) == sorted(family.adapted())
    for batch in (ids, ids[:1], ids[:2, :1]):
        assert torch.equal(model(batch).logits, base(batch).logits)
    wide = family.make().to(torch.bfloat16)
    assert torch.equal(adapt(wide, target_modules=None)(ids).logits, base.to(torch.bfloat16)(ids).logits)


@every_architecture
def test_every_adapter_parameter_gets_a_gradient(family: Architecture, ids: torch.Tensor) -> None:
    model = shake(fresh(family, router_bias=True)).train()
    model(input_ids=ids, labels=ids).loss.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 4 * len(family.adapted())  # A, heads, router, its bias
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in trained)


@every_architecture
@torch.no_grad()
def test_save_and_load_is_exact(family: Architecture, tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(fresh(family))
    tuned = model(ids).logits
    assert not torch.allclose(tuned, family.make()(ids).logits, atol=1e-3)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(family.make(), str(tmp_path)).eval()
    assert torch.equal(again(ids).logits, tuned)


@every_architecture
@torch.no_grad()
def test_gates_are_recorded_by_token(family: Architecture, ids: torch.Tensor) -> None:
    model = shake(fresh(family))
    with record_gates(model) as record:
        model(ids)
        whole = record.stacked()
        model(ids[1:2])
        alone = record.stacked()
    assert record.modules == list(hydra_layers(model))
    assert whole.shape == (len(family.adapted()), 3, 10, 3)
    torch.testing.assert_close(whole.sum(-1), torch.ones(whole.shape[:-1]))
    torch.testing.assert_close(whole[:, 1:2], alone, atol=1e-5, rtol=0)  # batch and tokens are not mixed up
    assert whole.std(2).min() > 0


@every_architecture
@torch.no_grad()
def test_both_ways_of_generating_agree(family: Architecture, tokenizer: Any) -> None:
    model = shake(fresh(family))
    tokens = list(generate(model, tokenizer, MESSAGES, Sampling(max_new_tokens=5)))
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    theirs = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert [token.id for token in tokens] == [i for i in theirs.tolist() if i != tokenizer.eos_token_id]
    assert tokens
    for token in tokens:
        gates = torch.tensor(token.gates)
        assert gates.shape == (len(family.adapted()), 3)
        torch.testing.assert_close(gates.sum(-1), torch.ones(len(gates)))


@mixtures
@pytest.mark.parametrize(
    "targets",
    [["gate_up_proj"], ["w1", "w2"], ["q_proj", "down_proj"], ["q_proj", "w1"], ["experts"], r".*experts.*", r".*\.w1"],
)
def test_naming_experts_is_refused(name: str, targets: Any) -> None:
    with pytest.raises(ConfigError, match=r"(?i)experts.*not adapted|expert.*doesn't adapt experts"):
        adapt(ARCHITECTURES[name].make(), target_modules=targets)


@mixtures
def test_all_linear_leaves_experts_alone(name: str) -> None:
    names = hydra_layers(adapt(ARCHITECTURES[name].make(), target_modules="all-linear"))
    assert sorted(names) == sorted(ARCHITECTURES[name].adapted())


class SeparateExperts(nn.Module):
    """A mixture whose experts are linear layers, as other code than transformers' has them."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.ModuleDict({name: nn.Linear(4, 4) for name in ("fc1", "fc2")}) for _ in "ab")
        self.shared = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("q_proj", "k_proj", "v_proj", "o_proj")})


def test_experts_that_are_layers_are_refused_too() -> None:
    assert default_targets(SeparateExperts()) == ["q_proj", "k_proj", "v_proj", "o_proj"]
    with pytest.raises(ConfigError, match=r"experts\.0\.fc1.*doesn't adapt experts"):
        adapt(SeparateExperts(), target_modules=["fc1"], task_type=None)


def test_an_unknown_architecture_names_its_layers() -> None:
    with pytest.raises(ConfigError, match=r"Sequential: which layers.*Set target_modules.*named 0, 1"):
        default_targets(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_a_second_adapter_gets_the_same_default_layers() -> None:
    model = adapt(tiny_llama(), target_modules=None)
    assert [name.removeprefix("base_model.model.") for name in adaptable_names(model)] == adaptable_names(tiny_llama())
    model.add_adapter("second", HydraLoraConfig())
    layers = hydra_layers(model)
    assert len(layers) == 6
    assert all(set(layer.hydra_A) == {"default", "second"} for layer in layers.values())
