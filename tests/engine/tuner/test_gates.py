"""Recorded gates: what the routers really used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from hydralora import ConfigError, HydraLoraConfig, record_gates
from hydralora.tuner.gates import GateRecord, live_gates, load_balance, mean_gates, recorded_layers
from hydralora.tuner.model import active_adapter, hydra_layers
from hydralora.tuner.router import Router, normalised_entropy
from hydralora.tuner.structure import model_body
from tests.tiny_model import adapt, shake, tiny_gemma2, tiny_gpt2, tiny_llama, tiny_opt


@pytest.mark.parametrize("router_input", ["latent", "hidden"])
@torch.no_grad()
def test_recorded_gates_equal_the_formula(router_input: str, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), router_input=router_input, router_bias=True))
    layer = hydra_layers(model)["model.layers.0.mlp.gate_proj"]
    inputs: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with record_gates(model) as record:
        model(ids)
    handle.remove()
    a, router = layer.hydra_A["default"], layer.hydra_router["default"]
    features = inputs[0] if router_input == "hidden" else a(inputs[0])
    wanted = (features @ router.get_parameter("weight").T + router.get_parameter("bias")).softmax(-1)
    torch.testing.assert_close(record.stacked()[record.modules.index("model.layers.0.mlp.gate_proj")], wanted)


def test_modules_come_in_the_models_order(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama(), target_modules=["down_proj", "q_proj"])
    with record_gates(model) as record:
        model(ids)
    assert record.modules == list(hydra_layers(model))
    assert record.modules[0] == "model.layers.0.self_attn.q_proj"


@torch.no_grad()
def test_gates_under_a_kv_cache_equal_those_of_one_full_pass(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    with record_gates(model) as record:
        model(ids)
        whole = record.stacked()
        cache, steps = None, []
        for part in (ids[:, :6], *ids[:, 6:].split(1, dim=1)):
            cache = model(part, past_key_values=cache, use_cache=True).past_key_values
            steps.append(record.stacked())
    assert len(steps) == 5
    torch.testing.assert_close(torch.cat(steps, dim=2), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_mean_gates_ignores_padding(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    mask = torch.zeros(ids.shape, dtype=torch.long)
    for i, length in enumerate((4, 10, 0)):
        mask[i, :length] = 1
    with record_gates(model) as record:
        model(ids, attention_mask=mask)
        padded = mean_gates(record.stacked(), mask.bool())
        model(ids[:1, :4])
        alone = record.stacked().mean(2)  # (modules, 1, N)
    torch.testing.assert_close(padded[:, :1], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded.sum(-1)[:, :2], torch.ones(6, 2))
    assert not padded[:, 2].any()


def tap_count(model: Any) -> int:
    return sum(len(module.listeners) for module in model.modules() if isinstance(module, Router))


def test_listeners_are_removed_afterwards_and_after_an_error(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama())
    with record_gates(model) as record:
        assert tap_count(model) == 6
    assert tap_count(model) == 0
    model(ids)
    assert record.modules == []
    with pytest.raises(KeyError), record_gates(model):
        raise KeyError
    assert tap_count(model) == 0


def test_the_active_adapters_gates_are_recorded(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama())
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj", "gate_proj", "down_proj"]))
    model.set_adapter("second")
    assert {active_adapter(layer) for layer in hydra_layers(model).values()} == {"second"}
    with record_gates(model) as record:
        model(ids)
    assert record.stacked().shape[-1] == 5


def test_entropy_is_a_share_of_its_maximum() -> None:
    gates = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(normalised_entropy(gates), torch.tensor([1.0, 0.0, 0.5]), atol=1e-5, rtol=0)
    assert normalised_entropy(torch.ones(3, 1)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("num_heads", [1, 3])
def test_entropy_stays_on_the_gates_device(num_heads: int) -> None:
    entropy = normalised_entropy(torch.ones(2, 5, num_heads, device="meta"))
    assert (entropy.shape, entropy.device.type) == ((2, 5), "meta")


def hooks_and_listeners(model: Any) -> int:
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return hooks + tap_count(model)


ARCHITECTURES = pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_gemma2, tiny_opt])


@ARCHITECTURES
@torch.no_grad()
def test_every_token_of_every_module_is_recorded(make: Callable[[], Any], ids: torch.Tensor) -> None:
    model = shake(adapt(make(), target_modules=None, num_heads=4))
    seen: dict[str, torch.Tensor] = {}
    for name, layer in hydra_layers(model).items():
        layer.hydra_router["default"].register_forward_hook(
            lambda module, args, gates, name=name: seen.update({name: gates.detach()})
        )
    with record_gates(model) as record:
        model(ids)
    gates = record.stacked()
    assert record.modules == list(hydra_layers(model))
    assert (gates.shape, gates.dtype, gates.device.type) == ((len(record.modules), 3, 10, 4), torch.float32, "cpu")
    assert not gates.requires_grad
    for name, recorded in zip(record.modules, gates, strict=True):
        assert torch.equal(recorded, seen[name].view(3, 10, 4))
    with record_gates(model):
        model(ids[:1])
        row = seen[record.modules[0]].view(1, 10, 4)
    torch.testing.assert_close(gates[0, :1], row, atol=1e-5, rtol=0)  # batch and tokens were not mixed up


@ARCHITECTURES
@torch.no_grad()
def test_passes_under_a_kv_cache_join_to_one(make: Callable[[], Any], ids: torch.Tensor) -> None:
    model = shake(adapt(make(), target_modules=None))
    with record_gates(model) as whole:
        model(ids)
    with record_gates(model) as record:
        cache = None
        for part in (ids[:, :6], *ids[:, 6:].split(1, dim=1)):
            cache = model(part, past_key_values=cache, use_cache=True).past_key_values
    assert [gates.shape[2] for gates in record.passes] == [6, 1, 1, 1, 1]
    torch.testing.assert_close(record.joined(), whole.stacked(), atol=1e-5, rtol=0)


@ARCHITECTURES
@torch.no_grad()
def test_a_left_padded_row_has_the_gates_it_has_alone(make: Callable[[], Any], ids: torch.Tensor) -> None:
    model = shake(adapt(make(), target_modules=None))
    padded, mask = torch.zeros((3, 12), dtype=torch.long), torch.zeros((3, 12), dtype=torch.long)
    for i, length in enumerate((3, 7, 10)):
        padded[i, 12 - length :], mask[i, 12 - length :] = ids[i, :length], 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with record_gates(model) as record:
        model(input_ids=padded, attention_mask=mask, position_ids=positions)
        together = record.stacked()
        for i, length in enumerate((3, 7, 10)):
            model(ids[i : i + 1, :length])
            torch.testing.assert_close(together[:, i, 12 - length :], record.stacked()[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_input_may_be_given_by_position_by_name_or_as_embeddings(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_opt(), target_modules=None))
    with record_gates(model) as record:
        model(ids)
        model(input_ids=ids)
        model(inputs_embeds=model.get_input_embeddings()(ids))
    assert len(record.passes) == 3
    assert all(torch.equal(gates, record.passes[0]) for gates in record.passes)
    assert record.stacked().shape == (4, 3, 10, 3)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_records_each_pass_once(use_reentrant: bool, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    with record_gates(model) as record:
        model(ids)
    plain = record.stacked()
    model.train().activation_checkpointing_enable({"use_reentrant": use_reentrant})
    calls: list[int] = []
    router = hydra_layers(model)["model.layers.0.mlp.up_proj"].hydra_router["default"]
    router.register_forward_hook(lambda *args: calls.append(1))
    passes: list[torch.Tensor] = []
    with record_gates(model, on_pass=lambda record: passes.append(record.stacked())) as record:
        for count in (1, 2):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            assert len(passes) == count
            loss.backward()
            assert len(calls) == 2 * count  # the layer did run again
            assert len(passes) == len(record.passes) == count
    for gates in record.passes:
        torch.testing.assert_close(gates, plain, atol=1e-5, rtol=0)
    assert record.modules == list(hydra_layers(model))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_backward_passes_of_several_batches_record_nothing(use_reentrant: bool, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama())).train()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    with record_gates(model) as record:
        losses = [model(input_ids=part, labels=part, use_cache=False).loss for part in ids.split(1)]
        for loss in losses:
            loss.backward()
    assert [gates.shape for gates in record.passes] == [(6, 1, 10, 3)] * 3


def test_a_whole_model_that_is_checkpointed_is_recorded_once(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    with record_gates(model) as record:
        logits = checkpoint(lambda ids: model(ids, use_cache=False).logits, ids, use_reentrant=False)
        logits.sum().backward()
    assert [gates.shape for gates in record.passes] == [(6, 3, 10, 3)]


def test_switching_adapters_within_the_block_switches_what_is_recorded(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama(), num_heads=2)
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj", "q_proj"]))
    shake(model)
    alone = {}
    for name in ("default", "second"):
        model.set_adapter(name)
        with record_gates(model) as record:
            model(ids)
        alone[name] = record.modules, record.stacked()
    with record_gates(model) as record:
        for name in ("default", "second", "default"):
            model.set_adapter(name)
            model(ids)
            assert record.modules == alone[name][0]
            assert torch.equal(record.stacked(), alone[name][1])
    assert [gates.shape for gates in record.passes] == [(6, 3, 10, 2), (4, 3, 10, 5), (6, 3, 10, 2)]


@pytest.mark.parametrize("targets", [["up_proj"], ["gate_proj", "up_proj", "down_proj"]])
@pytest.mark.parametrize("blocks", [[0, 1], [1]])
def test_two_adapters_at_once_are_refused(targets: list[str], blocks: list[int], ids: torch.Tensor) -> None:
    model = adapt(tiny_llama(), layers_to_transform=blocks)
    model.add_adapter("second", HydraLoraConfig(r=2, target_modules=targets, layers_to_transform=[1]))
    model.base_model.set_adapter(["default", "second"])
    with (
        pytest.raises(ConfigError, match=r"Two adapters are active on model\.layers\.1\.mlp"),
        record_gates(model) as record,
    ):
        model(ids)
    assert not record.passes
    assert hooks_and_listeners(model) == 0
    with record_gates(model) as record:
        model.set_adapter("second")
        model(ids)
    ends = tuple(f"layers.1.mlp.{target}" for target in targets)
    assert record.modules == [name for name in hydra_layers(model) if name.endswith(ends)]


@pytest.mark.parametrize(("max_tokens", "kept"), [(1, 1), (30, 1), (59, 1), (60, 2), (100, 3), (1000, 5)])
@torch.no_grad()
def test_a_record_is_bounded(max_tokens: int, kept: int, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    taken: list[torch.Tensor] = []
    with record_gates(model, max_tokens, lambda record: taken.append(record.stacked())) as record:
        for i in range(5):
            model(ids + i)
            assert len(taken) == i + 1
            assert sum(gates.shape[1:3].numel() for gates in record.passes) <= max(max_tokens, 30)
    assert len(record.passes) == kept
    assert all(map(torch.equal, record.passes, taken[5 - kept :]))
    with record_gates(model) as unbounded:
        for i in range(5):
            model(ids + i)
    assert all(map(torch.equal, unbounded.passes, taken))


@torch.no_grad()
def test_a_record_may_be_entered_again(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    record = record_gates(model)
    for _ in range(2):
        with record:
            model(ids)
        model(ids[:1])
    assert [gates.shape[1] for gates in record.passes] == [3, 3]


@ARCHITECTURES
@torch.no_grad()
def test_transformers_own_generate_is_recorded(make: Callable[[], Any], ids: torch.Tensor) -> None:
    model = shake(adapt(make(), target_modules=None))
    model.generation_config.eos_token_id = None
    with record_gates(model) as record:
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, pad_token_id=0
        )
        made = record.joined()
        model(whole[:, :-1])
    assert made.shape == (len(record.modules), 3, 14, 3)
    torch.testing.assert_close(made, record.stacked(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt])
@torch.no_grad()
def test_an_adapter_that_transformers_loaded_is_recorded(
    make: Callable[[], Any], tmp_path: Path, ids: torch.Tensor
) -> None:
    model = shake(adapt(make(), target_modules=None))
    model.save_pretrained(tmp_path)
    plain = make()
    plain.load_adapter(str(tmp_path))
    with record_gates(model) as wanted, record_gates(plain.eval()) as record:
        model(ids)
        plain(ids)
        plain(ids[:, :4])
    assert record.modules == wanted.modules
    assert [gates.shape for gates in record.passes] == [wanted.stacked().shape, (len(record.modules), 3, 4, 3)]
    assert torch.equal(record.passes[0], wanted.stacked())


def test_a_pass_that_fails_is_not_recorded(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    calls: list[GateRecord] = []

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    last = hydra_layers(model)["model.layers.1.mlp.down_proj"]
    handle = last.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"), record_gates(model, on_pass=calls.append) as record:
        model(ids)
    assert not calls
    with record_gates(model, on_pass=calls.append) as record:
        with pytest.raises(RuntimeError, match="out of memory"):
            model(ids)
        handle.remove()
        model(ids[:1])
    assert [gates.shape for gates in record.passes] == [(6, 1, 10, 3)]
    assert len(calls) == 1
    assert hooks_and_listeners(model) == 0


def test_two_records_at_once_dont_disturb_each_other(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    with record_gates(model) as outer:
        with record_gates(model) as inner, live_gates(model) as live:
            model(ids)
        model(ids[:1])
    assert [len(outer.passes), len(inner.passes), len(live)] == [2, 1, 1]
    assert torch.equal(outer.passes[0], inner.stacked())
    assert torch.equal(live[0].detach(), inner.stacked())
    assert hooks_and_listeners(model) == 0


@torch.no_grad()
def test_the_base_alone_has_no_gates(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama())
    with record_gates(model) as record, model.disable_adapter():
        model(ids)
    assert not record.passes


@torch.no_grad()
def test_an_adapted_output_embedding_is_left_out(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), target_modules=["up_proj", "lm_head"]))
    with record_gates(model) as record:
        model(ids)
        model(ids, logits_to_keep=1)
        body = model(ids[:, :1], output_hidden_states=True).hidden_states[-1]
        for _ in range(2):  # as a loss does that sees few tokens at a time
            model.get_output_embeddings()(body)
    assert record.modules == list(recorded_layers(model)) == [f"model.layers.{i}.mlp.up_proj" for i in range(2)]
    assert [gates.shape for gates in record.passes] == [(2, 3, 10, 3), (2, 3, 10, 3), (2, 3, 1, 3)]


@torch.no_grad()
def test_a_bare_body_is_recorded(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama().model, task_type=None))
    assert model_body(model) is model
    with record_gates(model) as record:
        model(ids)
        model(ids[:1])
    assert [gates.shape for gates in record.passes] == [(6, 3, 10, 3), (6, 1, 10, 3)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_live_gates_carry_gradients(checkpointing: bool, ids: torch.Tensor) -> None:
    def router_gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = shake(adapt(tiny_llama(), num_heads=4)).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        with live_gates(model) as passes:
            model(input_ids=ids, use_cache=False)
        assert len(passes) == 1
        assert passes[0].shape == (6, 3, 10, 4)
        load_balance(passes[0], torch.ones_like(ids).bool()).backward()
        assert len(passes) == 1
        found = [layer.hydra_router["default"].get_parameter("weight").grad for layer in hydra_layers(model).values()]
        assert all(gradient is not None and bool(gradient.any()) for gradient in found)
        return [gradient for gradient in found if gradient is not None]

    for mine, plain in zip(router_gradients(checkpointing), router_gradients(False), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-6, rtol=1e-4)


def test_load_balance_equals_a_hand_computation() -> None:
    gates = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
    # Strongest heads 0, 0, 2, 0: shares 3/4, 0, 1/4; mean gates .4, .3125, .2875
    wanted = 3 * (0.75 * 0.4 + 0.25 * 0.2875)
    everything = torch.ones(1, 4, dtype=torch.bool)
    assert float(load_balance(gates[None, None], everything)) == pytest.approx(wanted)
    two = torch.stack([gates, gates.flip(-1).roll(1, 0)])[:, None]  # a second module: the mean over both
    # Strongest 2, 2, 2, 0 in another order: shares 1/4, 0, 3/4; mean gates .2875, .3125, .4
    assert float(load_balance(two, everything)) == pytest.approx((wanted + 3 * (0.25 * 0.2875 + 0.75 * 0.4)) / 2)


@pytest.mark.parametrize("num_heads", [1, 2, 5])
def test_load_balance_lies_between_even_and_collapsed(num_heads: int) -> None:
    mask = torch.ones(2, 10, dtype=torch.bool)
    turns = torch.eye(num_heads)[torch.arange(20) % num_heads].view(1, 2, 10, num_heads)
    assert float(load_balance(turns, mask)) == pytest.approx(1)
    assert float(load_balance(torch.full((3, 2, 10, num_heads), 1 / num_heads), mask)) == pytest.approx(1)
    collapsed = torch.eye(num_heads)[-1].expand(3, 2, 10, num_heads)
    assert float(load_balance(collapsed, mask)) == pytest.approx(num_heads)


@pytest.mark.parametrize("dtype", [torch.bool, torch.long])
def test_load_balance_ignores_padding(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    gates = torch.rand(2, 3, 8, 4, generator=generator).softmax(-1)
    mask = torch.arange(8) < torch.tensor([[3], [8], [5]])  # (3, 8)
    used = torch.cat([gates[:, i, :length] for i, length in enumerate((3, 8, 5))], 1)  # (2, 16, 4)
    wanted = load_balance(used[:, None], torch.ones(1, 16, dtype=torch.bool))
    torch.testing.assert_close(load_balance(gates, mask.to(dtype)), wanted)
    changed = torch.where(mask[None, :, :, None], gates, torch.eye(4)[0])
    assert torch.equal(load_balance(changed, mask.to(dtype)), load_balance(gates, mask.to(dtype)))


def test_load_balance_of_no_token_is_no_loss() -> None:
    assert float(load_balance(torch.full((2, 1, 4, 3), 1 / 3), torch.zeros(1, 4, dtype=torch.bool))) == 0


def test_a_step_along_load_balance_evens_the_load_out(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=4))
    mask = torch.ones_like(ids).bool()
    routers = [layer.hydra_router["default"] for layer in hydra_layers(model).values()]
    optimizer = torch.optim.SGD([parameter for router in routers for parameter in router.parameters()], 1.0)
    losses = []
    for _ in range(8):
        with live_gates(model) as passes:
            model(ids)
        loss = load_balance(passes[0], mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
