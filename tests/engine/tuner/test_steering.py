"""Steered gates: what is asked is what a layer uses, and nothing of it stays."""

import json
import math
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn

from hydralora import ConfigError, HydraLoraConfig, record_gates, steer_gates
from hydralora.data.encoding import encode_prompt
from hydralora.inference.generation import Sampling, Token, generate
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import block_index, hydra_layers
from hydralora.tuner.steering import Steering, described_steering, steered
from tests.tiny_model import adapt, shake, tiny_gpt2, tiny_llama

HEADS = 4
SINGLE = [
    {"pin": 0},
    {"pin": 3},
    {"mute": [0]},
    {"mute": (1, 3)},
    {"uniform": True},
    {"temperature": 0.25},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 2},
    {"mute": [2], "temperature": 0.5, "top_k": 2},
    {"mute": [0, 1], "top_k": 2},
    {"temperature": 2, "top_k": 3},
    {"levels": (1, 0.5, 2, 0)},
    {"levels": (0, 0, 3, 0.001)},
    {"levels": (100, 1, 1, 0.01), "temperature": 0.5, "mute": [1]},
    {"levels": (0.3, 4, 1, 0), "top_k": 2},
]
ROUTERS: list[dict[str, Any]] = [
    {},
    {"router_input": "hidden", "router_bias": True},
    {"top_k": 2},
    {"router": "uniform"},
    {"shared_A": False},
]


def wanted_row(dense: list[float], request: dict[str, Any]) -> list[float]:
    """The formula, token by token: pin, uniform, or level * gate ** (1 / temperature), cut and shared out
    anew."""
    heads = range(len(dense))
    if "pin" in request:
        return [float(head == request["pin"]) for head in heads]
    if request.get("uniform"):
        return [1 / len(dense)] * len(dense)
    levels = request.get("levels", [1] * len(dense))
    left = [head for head in heads if head not in request.get("mute", ()) and levels[head]]
    weights = {head: levels[head] * dense[head] ** (1 / request.get("temperature", 1)) for head in left}
    if not any(weights.values()):  # the router's own top_k kept none but muted heads
        weights = dict.fromkeys(left, 1.0)
    kept = sorted(left, key=lambda head: weights[head], reverse=True)[: request.get("top_k", len(left))]
    total = sum(weights[head] for head in kept)
    return [weights[head] / total if head in kept else 0.0 for head in heads]


def looped(layer: HydraLoraLayer, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """base(x) + scale * sum_i gates_i B_i A_i x, one head after the other; x (..., in), gates (..., N)."""
    name = layer.active_adapters[0]
    a, r = layer.hydra_A[name].get_parameter("weight"), layer.adapters[name].r
    y = layer.base_layer(x)
    for i, head in enumerate(layer.hydra_B[name]):
        own = a if layer.adapters[name].shared_A else a[i * r : (i + 1) * r]
        y = y + layer.adapters[name].scaling * gates[..., i : i + 1] * (x @ own.T @ head)
    return y


class Watched:
    """What each adapted layer reads and writes, by name, in the newest pass."""

    def __init__(self, model: Any) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        for name, layer in hydra_layers(model).items():
            layer.register_forward_hook(lambda module, args, out, name=name: self._keep(name, args[0], out))

    def _keep(self, name: str, x: torch.Tensor, y: torch.Tensor) -> None:
        self.inputs[name], self.outputs[name] = x.detach().clone(), y.detach().clone()


def unsteered_gates(layer: HydraLoraLayer, x: torch.Tensor) -> torch.Tensor:
    name = layer.active_adapters[0]
    return layer.hydra_router[name](x if layer.adapters[name].reads_input else layer.hydra_A[name](x))


@pytest.mark.parametrize("asked", SINGLE, ids=str)
@pytest.mark.parametrize("settings", ROUTERS, ids=str)
@torch.no_grad()
def test_a_layer_uses_the_gates_that_are_asked_for(
    settings: dict[str, Any], asked: dict[str, Any], ids: torch.Tensor
) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS, **settings))
    watched = Watched(model)
    with steer_gates(model, **asked), record_gates(model) as record:
        model(ids)
    for name, layer in hydra_layers(model).items():
        used = record.stacked()[record.modules.index(name)]
        dense = unsteered_gates(layer, watched.inputs[name])  # (batch, tokens, N)
        wanted = torch.tensor([wanted_row(row, asked) for row in dense.flatten(0, 1).tolist()]).view_as(dense)
        if settings.get("router") == "uniform" and "top_k" in asked:  # all alike: which ones are kept is open
            used, wanted = used.sort(-1).values, wanted.sort(-1).values
        torch.testing.assert_close(used, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(used.sum(-1), torch.ones(ids.shape))
        wanted_output = looped(layer, watched.inputs[name], record.stacked()[record.modules.index(name)])
        torch.testing.assert_close(watched.outputs[name], wanted_output, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pinned_muted_and_uniform_gates_are_exact(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=3))
    with record_gates(model) as record:
        for head in range(3):
            with steer_gates(model, pin=head):
                model(ids)
            assert torch.equal(record.stacked(), torch.eye(3)[head].expand(6, 3, 10, 3))
        with steer_gates(model, mute=[0, 2]):
            model(ids)
        assert torch.equal(record.stacked(), torch.eye(3)[1].expand(6, 3, 10, 3))
        with steer_gates(model, uniform=True):
            model(ids)
        assert torch.equal(record.stacked(), torch.full((6, 3, 10, 3), 1 / 3))


@torch.no_grad()
def test_a_request_that_changes_nothing_changes_nothing(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    plain = model(ids).logits
    for same in (Steering(temperature=1.0), Steering(top_k=HEADS)):
        with steered(model, same):
            torch.testing.assert_close(model(ids).logits, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [5e-324, 1e-39, 1e-3, 1e39, 1e308])
@pytest.mark.parametrize("settings", ROUTERS, ids=str)
@torch.no_grad()
def test_no_temperature_breaks_the_gates(settings: dict[str, Any], temperature: float, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS, **settings))
    for mute in ((), (1,)):
        with record_gates(model) as record:
            model(ids)
            with steer_gates(model, temperature=temperature, mute=mute):
                model(ids)
        plain, used = (gates[0] for gates in record.passes)  # of the first layer, whose input is the same
        torch.testing.assert_close(used.sum(-1), torch.ones(ids.shape))
        plain = plain.index_fill(-1, torch.tensor(mute, dtype=torch.long), 0)
        some = plain.sum(-1) > 0
        if temperature < 1 and settings.get("router") != "uniform":
            assert torch.equal(used.argmax(-1)[some], plain.argmax(-1)[some])
            # two logits that differ by less than some temperatures share the weight
            assert float(used.amax(-1)[some].median()) == pytest.approx(1)
        if temperature > 1:
            alike = (plain > 0) / (plain > 0).sum(-1, keepdim=True)
            torch.testing.assert_close(used[some], alike[some])


@pytest.mark.parametrize("layers", [[0], [1], [0, 1], (1, 1)])
@torch.no_grad()
def test_only_the_named_blocks_are_steered(layers: Any, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    watched = Watched(model)
    with steer_gates(model, pin=2, layers=layers), record_gates(model) as record:
        model(ids)
    for name, layer in hydra_layers(model).items():
        used = record.stacked()[record.modules.index(name)]
        pinned = torch.equal(used, torch.eye(HEADS)[2].expand_as(used))
        assert pinned == (block_index(name) in layers)
        if not pinned:
            torch.testing.assert_close(used, unsteered_gates(layer, watched.inputs[name]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("enter_first", ["record", "steering"])
@torch.no_grad()
def test_a_record_shows_steered_gates_whichever_was_there_first(enter_first: str, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    with ExitStack() as stack:
        if enter_first == "steering":
            stack.enter_context(steer_gates(model, pin=1))
        record = stack.enter_context(record_gates(model))
        if enter_first == "record":
            stack.enter_context(steer_gates(model, pin=1))
        model(ids)
    assert torch.equal(record.stacked()[..., 1], torch.ones(6, 3, 10))


@torch.no_grad()
def test_a_pinned_head_is_that_lora_alone(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_gpt2(), num_heads=HEADS, target_modules=["c_fc", "c_proj"]))
    with steer_gates(model, pin=3):
        pinned = model(ids).logits
    for layer in hydra_layers(model).values():
        for i in range(3):
            layer.hydra_B["default"][i] = layer.hydra_B["default"][3]
    # With all heads alike, gates make no difference.
    torch.testing.assert_close(model(ids).logits, pinned, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({}, "no setting is given"),
        ({"layers": [0]}, "no setting is given"),
        ({"mute": [], "uniform": False}, "no setting is given"),
        ({"pin": HEADS}, rf"pin names head {HEADS}; .* 0 to {HEADS - 1}"),
        ({"pin": -1}, "pin names head -1"),
        ({"pin": 1.0}, "pin names head 1.0"),
        ({"pin": True}, "pin names head True"),
        ({"mute": [0, 9]}, "mute names head 9"),
        ({"mute": [-1]}, "mute names head -1"),
        ({"mute": range(HEADS)}, "all 4 heads are muted"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": HEADS + 1}, f"top_k is {HEADS + 1}"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_k": True}, "top_k is True"),
        ({"top_k": 3, "mute": [0, 1]}, r"top_k is 3.*1 to 2"),
        ({"pin": 0, "mute": [1]}, "pin and mute exclude"),
        ({"pin": 0, "top_k": 1}, "pin and top_k exclude"),
        ({"uniform": True, "temperature": 2.0}, "uniform and temperature exclude"),
        ({"pin": 0, "uniform": True}, "pin and uniform exclude"),
        ({"pin": 0, "layers": [0, 7]}, r"layers \[7\] .* \[0, 1\]"),
        ({"pin": 0, "layers": [-1]}, r"layers \[-1\]"),
        ({"levels": [1, 1]}, "2 levels; give one for each of 4"),
        ({"levels": [0, 0, 0, 0]}, "at level 0"),
        ({"levels": [0, 1, 1, 1], "mute": [1, 2, 3]}, "at level 0"),
        ({"levels": [1, 1, -1, 1]}, "a level is -1"),
        ({"levels": [1, 1, math.nan, 1]}, "a level is nan"),
        ({"levels": [1, 1, 1, 101]}, "a level is 101"),
        ({"pin": 0, "levels": [1, 1, 1, 1]}, "pin and levels exclude"),
        ({"levels": [1, 1, 0, 1], "top_k": 4}, r"1 to 3"),
        ({"pin": 0, "layers": []}, "layers names no block"),
    ],
)
def test_what_cant_be_done_is_refused_by_name(asked: dict[str, Any], named: str) -> None:
    model = adapt(tiny_llama(), num_heads=HEADS)
    with pytest.raises(ConfigError, match=named):
        steer_gates(model, **asked)


def test_a_model_without_an_adapter_cant_be_steered() -> None:
    with pytest.raises(ConfigError, match="no HydraLoRA adapter"):
        steer_gates(tiny_llama(), pin=0)


def test_a_block_without_adapted_layers_cant_be_steered() -> None:
    model = adapt(tiny_llama(), layers_to_transform=[1])
    with pytest.raises(ConfigError, match=r"layers \[0\] are not adapted; those that are: \[1\]"):
        steer_gates(model, pin=0, layers=[0])


def test_steering_twice_is_refused_and_the_first_stays(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    plain = model(ids).logits
    outer = steer_gates(model, pin=1)
    with record_gates(model) as record, outer:
        for inner in (outer, steer_gates(model, pin=2), steer_gates(model, mute=[0], layers=[1])):
            with pytest.raises(ConfigError, match="steered already"), inner:
                pass
            model(ids)
            assert torch.equal(record.stacked()[..., 1], torch.ones(6, 3, 10))
    assert torch.equal(model(ids).logits, plain)


@torch.no_grad()
def test_each_block_may_be_steered_in_its_own_way(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    with record_gates(model) as record, steer_gates(model, pin=1, layers=[0]):
        with steer_gates(model, pin=2, layers=[1]):
            model(ids)
        model(ids)
    both, one = record.passes  # (modules, batch, tokens, N), three modules a block
    assert torch.equal(both, torch.eye(HEADS)[[1, 1, 1, 2, 2, 2]][:, None, None].expand_as(both))
    assert torch.equal(one[:3], both[:3])
    assert not one[3:].eq(1).any()


@pytest.mark.parametrize("asked", SINGLE, ids=str)
@torch.no_grad()
def test_nothing_stays_behind(asked: dict[str, Any], ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    plain = model(ids).logits
    steering = steer_gates(model, **asked)
    assert torch.equal(model(ids).logits, plain)
    with steering:
        changed = model(ids).logits
    assert not torch.allclose(changed, plain, atol=1e-4)
    assert torch.equal(model(ids).logits, plain)
    with pytest.raises(KeyError), steering:
        raise KeyError
    assert torch.equal(model(ids).logits, plain)
    with steering:  # it may be entered again
        assert torch.equal(model(ids).logits, changed)


@torch.no_grad()
def test_an_error_within_a_pass_leaves_nothing_behind(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    plain = model(ids).logits

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    handle = hydra_layers(model)["model.layers.1.mlp.up_proj"].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"), steer_gates(model, pin=0):
        model(ids)
    handle.remove()
    assert torch.equal(model(ids).logits, plain)


@torch.no_grad()
def test_the_base_is_never_steered(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    with steer_gates(model, pin=0), model.disable_adapter():
        assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)


@torch.no_grad()
def test_the_active_one_of_several_adapters_is_steered(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=2))
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj"], layers_to_transform=[1]))
    shake(model)
    model.set_adapter("second")
    with steer_gates(model, pin=4), record_gates(model) as record:
        model(ids)
    assert record.modules == ["model.layers.1.mlp.up_proj"]
    assert torch.equal(record.stacked(), torch.eye(5)[4].expand(1, 3, 10, 5))
    with pytest.raises(ConfigError, match=r"those that are: \[1\]"):
        steer_gates(model, pin=0, layers=[0])
    model.set_adapter("default")
    with pytest.raises(ConfigError, match="0 to 1"):
        steer_gates(model, pin=4)
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ConfigError, match="2 HydraLoRA adapters are active"):
        steer_gates(model, pin=0)


def test_gradients_flow_through_steered_gates(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    with steer_gates(model, mute=[1], temperature=2.0):
        model(ids, labels=ids).loss.backward()
    for layer in hydra_layers(model).values():
        router = layer.hydra_router["default"].get_parameter("weight").grad
        heads = layer.hydra_B["default"].grad
        assert router is not None
        assert heads is not None
        assert router[[0, 2, 3]].any(-1).all()
        assert not router[1].any()
        assert heads.flatten(1).any(-1).tolist() == [True, False, True, True]


def test_a_low_dtype_is_steered_in_float32(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama().to(torch.bfloat16), num_heads=3)).to(torch.bfloat16)
    with steer_gates(model, temperature=0.5), record_gates(model) as record, torch.no_grad():
        logits = model(ids).logits
    assert (record.stacked().dtype, logits.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(record.stacked().sum(-1), torch.ones(6, 3, 10))


@pytest.mark.parametrize(
    "steering",
    [
        Steering(pin=0),
        Steering(mute=(0, 2), layers=(1,)),
        Steering(uniform=True),
        Steering(temperature=0.3, top_k=2, layers=(0,)),
    ],
)
def test_generation_uses_the_steered_gates(steering: Steering, tokenizer: Any) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    ask = [{"role": "user", "content": "Say something, please."}]
    before = answer(model, tokenizer, ask)
    tokens = answer(model, tokenizer, ask, steering=steering)
    prompt = encode_prompt(tokenizer, ask)
    whole = torch.tensor([prompt + [token.id for token in tokens]])
    with steer_gates(model, **vars(steering)), record_gates(model) as record, torch.no_grad():
        logits = model(whole).logits[0, len(prompt) - 1 : -1]
    gates = torch.tensor([token.gates for token in tokens]).transpose(0, 1)  # (modules, tokens, N)
    torch.testing.assert_close(gates, record.stacked()[:, 0, len(prompt) - 1 : -1], atol=1e-4, rtol=0)
    assert [token.id for token in tokens] == logits.argmax(-1).tolist()
    assert answer(model, tokenizer, ask) == before != tokens
    assert answer(model, tokenizer, ask, adapter=False, steering=steering) == answer(tiny_llama(), tokenizer, ask)


def test_a_steered_answer_leaves_the_one_beside_it_alone(tokenizer: Any) -> None:
    model = shake(adapt(tiny_llama(), num_heads=HEADS))
    ask = [{"role": "user", "content": "Say something, please."}]
    alone = answer(model, tokenizer, ask), answer(model, tokenizer, ask, steering=Steering(pin=2))
    plain = generate(model, tokenizer, ask, Sampling(max_new_tokens=10))
    pinned = generate(model, tokenizer, ask, Sampling(max_new_tokens=10), steering=Steering(pin=2))
    pairs = list(zip(plain, pinned, strict=False))
    assert len(pairs) > 3
    assert [list(side) for side in zip(*pairs, strict=True)] == [side[: len(pairs)] for side in alone]
    next(generate(model, tokenizer, ask, steering=Steering(pin=2)))  # dropped in the middle
    assert answer(model, tokenizer, ask) == alone[0]


def test_generation_refuses_a_head_that_isnt_there(tokenizer: Any) -> None:
    model = adapt(tiny_llama(), num_heads=HEADS)
    with pytest.raises(ConfigError, match="pin names head 9"):
        answer(model, tokenizer, [{"role": "user", "content": "Hello"}], steering=Steering(pin=9))


def answer(model: Any, tokenizer: Any, ask: list[dict[str, str]], **options: Any) -> list[Token]:
    return list(generate(model, tokenizer, ask, Sampling(max_new_tokens=10), **options))


def test_what_was_asked_can_be_told() -> None:
    assert Steering(pin=0).describe() == {"pin": 0}
    assert Steering(mute=(0, 2), temperature=0.5, layers=(0,)).describe() == {
        "mute": [0, 2],
        "temperature": 0.5,
        "layers": [0],
    }


def test_a_single_head_can_be_pinned() -> None:
    layer = HydraLoraLayer(nn.Linear(8, 8), "default", HydraLoraConfig(r=2, num_heads=1))
    nn.init.normal_(layer.hydra_B["default"])
    x = torch.randn(4, 8)
    with steer_gates(layer, pin=0):
        torch.testing.assert_close(layer(x), looped(layer, x, torch.ones(4, 1)))


@pytest.mark.parametrize(
    ("steering", "words"),
    [
        (Steering(pin=0), "pinned to head 1"),
        (Steering(mute=(0, 2), top_k=1), "without head 1, 3, top 1"),
        (Steering(levels=(1, 0.5, 0)), "at levels 1, 0.5, 0"),
        (Steering(uniform=True, layers=(0, 1, 2)), "uniform, in layers 0-2"),
        (Steering(temperature=0.5, layers=(4, 0, 5, 6)), "at temperature 0.5, in layers 0, 4-6"),
    ],
)
def test_steering_is_told_in_words_and_read_again(steering: Steering, words: str) -> None:
    assert steering.in_words() == words
    assert described_steering(json.loads(json.dumps(steering.describe()))).describe() == steering.describe()


@pytest.mark.parametrize("asked", [{}, {"pin": "head 1"}, {"pin": 0, "uniform": True}, {"temperature": -1}])
def test_what_cant_have_been_steered_is_no_steering(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Steering|validation error"):
        described_steering(asked)


def test_a_model_without_gates_cant_be_steered(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="no gates to steer"):
        next(generate(tiny_llama(), tokenizer, [{"role": "user", "content": "a"}], steering=Steering(pin=0)))
