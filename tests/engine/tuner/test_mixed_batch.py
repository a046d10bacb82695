"""Rows of one batch through different adapters, as PEFT's `adapter_names` gives them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

from hydralora import ConfigError, HydraLoraConfig, record_gates
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import MLP, adapt, shake, tiny_gpt2, tiny_llama, tiny_opt

NAMES = ["second", "__base__", "default"]
WIDE = {"gate_proj", "up_proj", "down_proj", "q_proj", "v_proj", "c_attn", "c_fc", "fc1", "fc2"}


def two_adapters(make: Callable[[], Any] = tiny_llama) -> Any:
    """Two adapters of unlike heads and ranks, partly on the same layers."""
    model = adapt(make(), target_modules=None)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()} & WIDE
    second = HydraLoraConfig(
        r=2, num_heads=5, target_modules=sorted(names)[:3], router_bias=True, task_type="CAUSAL_LM"
    )
    model.add_adapter("second", second)
    return shake(model).eval()


@torch.no_grad()
def alone(model: Any, name: str, ids: torch.Tensor) -> torch.Tensor:
    """Logits of the rows under one adapter, or under none."""
    if name == "__base__":
        with model.disable_adapter():
            return model(ids).logits
    model.set_adapter(name)
    logits = model(ids).logits
    model.set_adapter("default")
    return logits


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_opt])  # OPT flattens batch and tokens
@torch.no_grad()
def test_each_row_is_as_it_is_alone(make: Callable[[], Any], ids: torch.Tensor) -> None:
    model = two_adapters(make)
    mixed = model(input_ids=ids, adapter_names=NAMES).logits
    for i, name in enumerate(NAMES):
        torch.testing.assert_close(mixed[i : i + 1], alone(model, name, ids[i : i + 1]), atol=1e-5, rtol=0)
    assert not torch.allclose(mixed, model(ids).logits, atol=1e-2)
    assert all(not layer._forward_pre_hooks for layer in hydra_layers(model).values())


@torch.no_grad()
def test_the_modules_that_are_trained_in_full_follow_the_row(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), modules_to_save=["lm_head"]))
    head = model.base_model.model.lm_head
    head.modules_to_save["default"].weight.mul_(2)
    names = ["default", "__base__", "default"]
    mixed = model(input_ids=ids, adapter_names=names).logits
    for i, name in enumerate(names):
        torch.testing.assert_close(mixed[i : i + 1], alone(model, name, ids[i : i + 1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}], ids=str)
@torch.no_grad()
def test_generation_keeps_each_rows_adapter(settings: dict[str, Any], ids: torch.Tensor) -> None:
    model = two_adapters()
    model.generation_config.eos_token_id = None
    common: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "pad_token_id": 0} | settings
    if "do_sample" in settings:  # draws are those of the whole batch, so only a certain token can be compared
        common |= {"top_k": 1}
    made = model.generate(input_ids=ids, adapter_names=NAMES, **common)
    copies = len(made) // len(NAMES)
    assert copies == settings.get("num_return_sequences", 1)
    for i, name in enumerate(NAMES):
        row = common | {"input_ids": ids[i : i + 1], "attention_mask": common["attention_mask"][:1]}
        if name == "__base__":
            with model.disable_adapter():
                wanted = model.generate(**row)
        else:
            model.set_adapter(name)
            wanted = model.generate(**row)
            model.set_adapter("default")
        assert torch.equal(made[copies * i : copies * (i + 1)], wanted), name


@torch.no_grad()
def test_an_encoder_sees_each_row_once_under_beams() -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, eos_token_id=1)
    base = T5ForConditionalGeneration(config)
    base.generation_config.decoder_start_token_id = 0
    model = shake(adapt(base, target_modules=["wi", "wo", "q"], task_type="SEQ_2_SEQ_LM"))
    ids = torch.randint(2, 64, (2, 6), generator=torch.Generator().manual_seed(0))
    settings = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    made = model.generate(input_ids=ids, adapter_names=["__base__", "default"], **settings)
    tuned = model.generate(input_ids=ids[1:], **settings)
    with model.disable_adapter():
        base = model.generate(input_ids=ids[:1], **settings)
    assert made[0, : base.shape[1]].tolist() == base[0].tolist()
    assert made[1, : tuned.shape[1]].tolist() == tuned[0].tolist()


@pytest.mark.parametrize("make", [tiny_llama, tiny_opt])
@torch.no_grad()
def test_gates_are_recorded_by_row(make: Callable[[], Any], ids: torch.Tensor) -> None:
    model = two_adapters(make)
    with record_gates(model) as record:
        model(input_ids=ids, adapter_names=NAMES)
    mixed, modules = record.stacked(), record.modules
    assert mixed.shape == (len(modules), 3, 10, 5)
    assert not mixed[:, 1].any()  # no adapter, no gates
    assert not mixed[:, 2, :, 3:].any()  # heads that only the other adapter has
    for row, name in ((0, "second"), (2, "default")):
        model.set_adapter(name)
        with record_gates(model) as record:
            model(ids[row : row + 1])
        heads = record.stacked().shape[-1]
        for module, gates in zip(modules, mixed, strict=True):
            if module in record.modules:
                wanted = record.stacked()[record.modules.index(module)]
                torch.testing.assert_close(gates[row : row + 1, :, :heads], wanted, atol=1e-5, rtol=0)
            else:
                assert not gates[row].any()  # a layer without its adapter


@torch.no_grad()
def test_rows_without_an_adapter_alone_have_no_pass_to_record(ids: torch.Tensor) -> None:
    model = two_adapters()
    with record_gates(model) as record:
        logits = model(input_ids=ids, adapter_names=["__base__"] * 3).logits
    assert not record.passes
    assert torch.equal(logits, tiny_llama()(ids).logits)


@torch.no_grad()
def test_lora_gives_the_same_rows(ids: torch.Tensor) -> None:
    """One head is a LoRA; PEFT's own mixed batch is the reference."""
    model = shake(adapt(tiny_llama(), num_heads=1))
    lora: Any = get_peft_model(tiny_llama(), LoraConfig(r=4, lora_alpha=16, target_modules=MLP, task_type="CAUSAL_LM"))
    for name, layer in hydra_layers(model).items():
        twin = lora.get_base_model().get_submodule(name)
        twin.lora_A["default"].weight.copy_(layer.hydra_A["default"].get_parameter("weight"))
        twin.lora_B["default"].weight.copy_(layer.hydra_B["default"][0].T)
    names = ["default", "__base__", "default"]
    ours, theirs = (tuned.eval()(input_ids=ids, adapter_names=names).logits for tuned in (model, lora))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("names", [["default"], ["default"] * 2, ["default"] * 6, []])
@pytest.mark.parametrize("make", [tiny_llama, tiny_opt])
def test_another_number_of_names_than_rows_is_refused(
    names: list[str], make: Callable[[], Any], ids: torch.Tensor
) -> None:
    with pytest.raises(ConfigError, match=rf"adapter_names has {len(names)} names, but the batch has 3 rows"):
        two_adapters(make)(input_ids=ids, adapter_names=names)


def test_an_unknown_adapter_and_training_are_refused(ids: torch.Tensor) -> None:
    model = two_adapters()
    with pytest.raises(ConfigError, match=r"no adapter 'third'\. Its adapters are default, second"):
        model(input_ids=ids, adapter_names=["third", "default", "default"])
    with pytest.raises(ConfigError, match=r"training mode.*model\.eval"):
        model.train()(input_ids=ids, adapter_names=NAMES)
