"""The layer: its formula against a loop over the heads, and what an output may depend on."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hydralora import ConfigError, HydraLoraConfig, record_gates
from hydralora.tuner.dropout import dropout
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import adapt, shake, tiny_gpt2, tiny_llama


def looped(layer: HydraLoraLayer, x: torch.Tensor, scale: float) -> torch.Tensor:
    """y = base(x) + scale * sum_i gates_i B_i A x, one head after the other."""
    name = "default"
    router: Any = layer.hydra_router[name]
    a: Any = layer.hydra_A[name]
    z = x @ a.weight.T  # (..., r)
    logits = (x if router.weight.shape[1] == x.shape[-1] else z) @ router.weight.T  # (..., N)
    if router.bias is not None:
        logits = logits + router.bias
    gates = logits.exp() / logits.exp().sum(-1, keepdim=True)
    y = layer.base_layer(x)
    for i, head in enumerate(layer.hydra_B[name]):
        y = y + scale * gates[..., i : i + 1] * (z @ head)
    return y


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("router_input", ["latent", "hidden"])
def test_equals_a_loop_over_the_heads(router_input: Any, bias: bool) -> None:
    torch.manual_seed(0)
    config = HydraLoraConfig(r=4, num_heads=5, lora_alpha=6, router_input=router_input, router_bias=bias)
    layer = HydraLoraLayer(nn.Linear(12, 20, bias=bias), "default", config)
    nn.init.normal_(layer.hydra_B["default"])
    x = torch.randn(2, 7, 12, requires_grad=True)
    upstream = torch.randn(2, 7, 20)
    learnt = [x, *(p for name, p in layer.named_parameters() if "hydra_" in name)]
    ours, theirs = layer(x), looped(layer, x, scale=6 / 4)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, oracle in zip(
        torch.autograd.grad(ours, learnt, upstream), torch.autograd.grad(theirs, learnt, upstream), strict=True
    ):
        torch.testing.assert_close(mine, oracle, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("router_input", ["latent", "hidden"])
@pytest.mark.parametrize(("make", "targets"), [(tiny_llama, "all-linear"), (tiny_gpt2, ["c_attn", "c_fc", "c_proj"])])
def test_a_fresh_adapter_changes_no_bit(make: Any, targets: Any, router_input: str, ids: torch.Tensor) -> None:
    base = make()(ids, output_hidden_states=True)
    fresh = adapt(make(), target_modules=targets, router_input=router_input)(ids, output_hidden_states=True)
    assert torch.equal(base.logits, fresh.logits)
    assert all(map(torch.equal, base.hidden_states, fresh.hidden_states))


def _loaded_anew(layer: HydraLoraLayer) -> HydraLoraLayer:
    other = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, num_heads=5))
    other.load_state_dict(copy.deepcopy(layer.state_dict()), assign=True)  # which replaces the parameters
    return other


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        lambda layer: pickle.loads(pickle.dumps(layer)),
        _loaded_anew,
        lambda layer: layer.double().float(),
    ],
    ids=["copied", "pickled", "loaded", "moved"],
)
@torch.no_grad()
def test_a_layer_uses_the_parameters_that_it_has_now(again: Callable[[HydraLoraLayer], HydraLoraLayer]) -> None:
    layer = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, num_heads=5))
    nn.init.normal_(layer.hydra_B["default"])
    x = torch.randn(3, 12)
    before = layer(x)
    other = again(layer)
    assert torch.equal(other(x), before)
    for parameter in other.parameters():
        parameter.copy_(torch.randn_like(parameter))
    torch.testing.assert_close(other(x), looped(other, x, scale=16 / 4))
    if other is not layer:
        assert torch.equal(layer(x), before)


def _forward_hook(layer: nn.Module, seen: list[torch.Tensor]) -> None:
    layer.register_forward_hook(lambda module, args, output: seen.append(output))


def _own_forward(layer: nn.Module, seen: list[torch.Tensor]) -> None:
    plain = layer.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(plain(x))
        return seen[-1]

    layer.forward = forward  # as accelerate does where a layer is offloaded


@pytest.mark.parametrize("watch", [_forward_hook, _own_forward])
@torch.no_grad()
def test_who_watches_the_base_layer_sees_its_own_output(watch: Callable[[nn.Module, list[torch.Tensor]], None]) -> None:
    layer = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, num_heads=5))
    nn.init.normal_(layer.hydra_B["default"])
    x = torch.randn(3, 12)
    seen: list[torch.Tensor] = []
    before, base = layer(x), layer.get_base_layer()
    watch(base, seen)
    torch.testing.assert_close(layer(x), before)
    plain = nn.functional.linear(x, base.get_parameter("weight"), base.get_parameter("bias"))
    assert torch.equal(seen[0], plain)


def test_a_shaken_adapter_changes_the_output(ids: torch.Tensor) -> None:
    assert not torch.allclose(tiny_llama()(ids).logits, shake(adapt(tiny_llama()))(ids).logits, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter_too", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_gates_are_float32_and_sum_to_one(
    dtype: torch.dtype, adapter_too: bool, autocast: bool, ids: torch.Tensor
) -> None:
    model = shake(adapt(tiny_llama().to(dtype), num_heads=4))
    if adapter_too:
        model.to(dtype)
    with record_gates(model) as record, torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(ids).logits
    gates = record.stacked()  # (modules, batch, tokens, N)
    assert gates.shape == (6, 3, 10, 4)
    assert gates.dtype == torch.float32
    assert logits.dtype == (torch.bfloat16 if autocast else dtype)
    torch.testing.assert_close(gates.sum(-1), torch.ones(6, 3, 10))
    assert gates.std(-1).min() > 0


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_an_output_depends_neither_on_its_neighbours_nor_on_padding(side: str) -> None:
    model = shake(adapt(tiny_llama(), router_input="latent"))
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 261, (length,), generator=generator) for length in (3, 9, 14)]
    width = 16
    ids, mask = torch.zeros((3, width), dtype=torch.long), torch.zeros((3, width), dtype=torch.long)
    places = [slice(width - len(row), width) if side == "left" else slice(0, len(row)) for row in rows]
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        ids[i, place], mask[i, place] = row, 1
    together = model(input_ids=ids, attention_mask=mask).logits
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        torch.testing.assert_close(together[i, place], model(input_ids=row[None]).logits[0], atol=1e-4, rtol=0)


def test_dropout_works_in_training_only() -> None:
    torch.manual_seed(0)
    layer = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, lora_dropout=0.5))
    nn.init.normal_(layer.hydra_B["default"])
    x = torch.randn(4, 12)
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": 0},
        {"r": 2.5},
        {"num_heads": 0},
        {"num_heads": -1},
        {"lora_dropout": 1.0},
        {"router_input": "output"},
        {"router_init": "zero"},
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        HydraLoraConfig(**wrong)


def test_no_matching_module_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'query'.*down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj"):
        adapt(tiny_llama(), target_modules=["query"])


def test_an_unsupported_layer_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"embed_tokens.*Embedding"):
        adapt(tiny_llama(), target_modules=["embed_tokens"])


def test_merging_is_refused() -> None:
    model = shake(adapt(tiny_llama()))
    with pytest.raises(NotImplementedError, match=r"gates change from token to token.*hydralora\.bake"):
        model.merge_and_unload()
    assert len(hydra_layers(model)) == 6  # a refusal half way takes no layer away


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 0.999])
@pytest.mark.parametrize("shape", [(301, 1003), (7,), (3, 0)])
def test_dropout_zeroes_a_share_and_keeps_the_mean(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, requires_grad=True)
    y = dropout(x, p)
    kept = y != 0
    assert y.shape == x.shape
    assert len(set(y[kept].tolist())) <= 1
    if x.numel() > 1000:
        assert float(kept.float().mean()) == pytest.approx(1 - p, abs=0.002)
        assert float(y.detach().mean()) == pytest.approx(1, abs=0.1 if p > 0.9 else 0.005)
        assert 0 < float(kept.float().mean(1).std()) < 0.03 or p == 0  # no pattern by row, nor by column
        assert float(kept.float().mean(0).std()) < 0.05
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())  # since x is one everywhere
    torch.manual_seed(0)
    assert torch.equal(dropout(x, p), y)


def test_dropout_draws_anew_for_neighbouring_values() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(40_000), 0.5) != 0).float().view(-1, 4)  # four values share a random number
    assert torch.corrcoef(kept.T).fill_diagonal_(0).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([kept[:-1, 3], kept[1:, 0]])).fill_diagonal_(0).abs().max() < 0.03
