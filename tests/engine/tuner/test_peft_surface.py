"""PEFT's public surface over our layer: each part does what it means, or is refused in a sentence with a way out."""

import json
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftMixedModel, PeftModel, convert_to_lora, get_peft_model, inject_adapter_in_model
from peft.helpers import check_if_peft_model, disable_input_dtype_casting, rescale_adapter_scale
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import save_as_lora
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.hotswap import hotswap_adapter, prepare_model_for_compiled_hotswap
from peft.utils.save_and_load import get_base_model_state_dict, set_base_model_state_dict
from safetensors.torch import load_file

from hydralora import ConfigError, HydraLoraConfig, loraplus_optimizer, record_gates, steer_gates
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import MLP, adapt, shake, tiny_gpt2, tiny_llama


def tuned(**settings: Any) -> Any:
    return shake(adapt(tiny_llama(), **settings))


def lora() -> Any:
    config = LoraConfig(r=4, target_modules=MLP, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny_llama(), config).eval()


@torch.no_grad()
def change(model: Any) -> torch.Tensor:
    """What the adapter adds to the first adapted layer's output, on random input."""
    layer: Any = next(module for module in model.modules() if hasattr(module, "set_scale"))
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    change: torch.Tensor = layer(x) - layer.base_layer(x)
    return change


class TestScaling:
    def test_it_is_a_factor_by_adapter_as_in_lora(self) -> None:
        for model in (tuned(lora_alpha=6), get_peft_model(tiny_llama(), LoraConfig(r=4, lora_alpha=6))):
            layer: Any = next(module for module in model.modules() if hasattr(module, "set_scale"))
            assert layer.scaling == {"default": 1.5}
            layer.set_scale("default", 2)
            layer.set_scale("another", 5)
            assert layer.scaling == {"default": 3}
            layer.scale_layer(0.5)
            assert layer.scaling == {"default": 1.5}
            layer.scale_layer(4)
            layer.unscale_layer(2)
            assert layer.scaling == {"default": 3}
            layer.unscale_layer()
            assert layer.scaling == {"default": 1.5}

    @pytest.mark.parametrize("make", [tuned, lora])
    def test_rescale_adapter_scale_scales_inside_its_block(self, make: Any) -> None:
        model = make()
        before = change(model)
        with rescale_adapter_scale(model, 0.5):
            torch.testing.assert_close(change(model), before / 2, atol=1e-6, rtol=1e-5)
        assert torch.equal(change(model), before)

    def test_a_scale_of_zero_is_the_base(self, ids: torch.Tensor) -> None:
        model = tuned()
        with rescale_adapter_scale(model, 0), torch.no_grad():
            torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits, atol=1e-5, rtol=0)

    def test_two_active_adapters_are_weighed_by_their_scales(self) -> None:
        model = tuned()
        model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=MLP))
        layer = hydra_layers(shake(model))["model.layers.0.mlp.up_proj"]
        x = torch.randn(3, 48)
        parts = {}
        for name in ("default", "second"):
            layer.set_adapter(name)
            parts[name] = layer(x) - layer.base_layer(x)
        layer.set_adapter(["default", "second"])
        layer.set_scale("default", 0.25)
        layer.set_scale("second", 0.75)
        both = layer(x) - layer.base_layer(x)
        torch.testing.assert_close(both, 0.25 * parts["default"] + 0.75 * parts["second"], atol=1e-5, rtol=1e-5)


class TestInputDtype:
    @torch.no_grad()
    def test_the_cast_can_be_switched_off(self) -> None:
        for model in (tuned(), lora()):
            model.to(torch.bfloat16)
            layer: Any = next(module for module in model.modules() if hasattr(module, "set_scale"))
            for name, parameter in layer.named_parameters():
                parameter.data = parameter.data if "base_layer" in name else parameter.data.float()
            x = torch.randn(3, 48, dtype=torch.bfloat16)
            assert layer(x).dtype == torch.bfloat16
            with disable_input_dtype_casting(model), pytest.raises(RuntimeError, match="dtype"):
                layer(x)
            assert layer(x).dtype == torch.bfloat16


class TestRefusals:
    def test_weighted_adapters(self) -> None:
        with pytest.raises(ConfigError, match=r"add_weighted_adapter: the routers.*set_adapter.*set_scale"):
            tuned().add_weighted_adapter(["default"], [0.5], "both")

    @pytest.mark.parametrize("convert", [convert_to_lora, lambda model, rank: save_as_lora("/nowhere", model, rank)])
    def test_conversion_to_lora(self, convert: Any) -> None:
        with pytest.raises(ConfigError, match=r"convert_to_lora: .*hydralora\.bake"):
            convert(tuned(), 4)

    def test_hot_swap_names_what_replaces_weights(self, tmp_path: Path, ids: torch.Tensor) -> None:
        other = shake(adapt(tiny_llama()), seed=7)
        other.save_pretrained(tmp_path)
        model = tuned()
        with pytest.raises(ConfigError, match=r"Hot-swapping is for LoRA.*load_adapter\(FOLDER, NAME\)"):
            hotswap_adapter(model, str(tmp_path), "default")
        with pytest.raises(ConfigError, match="Hot-swapping is for LoRA"):
            prepare_model_for_compiled_hotswap(model, target_rank=8)
        model.load_adapter(str(tmp_path), "default")
        with torch.no_grad():
            assert torch.equal(model.eval()(ids).logits, other(ids).logits)

    def test_mixed_models(self, tmp_path: Path) -> None:
        tuned().save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match=r"PeftMixedModel has no place.*without mixed=True"):
            get_peft_model(tiny_llama(), HydraLoraConfig(target_modules=MLP), mixed=True)
        with pytest.raises(ConfigError, match="PeftMixedModel has no place"):
            PeftMixedModel.from_pretrained(tiny_llama(), str(tmp_path))
        mixed = get_peft_model(tiny_llama(), LoraConfig(target_modules=MLP), mixed=True)
        with pytest.raises(ConfigError, match="PeftMixedModel has no place"):
            mixed.add_adapter("second", HydraLoraConfig(target_modules=MLP))

    @pytest.mark.parametrize("name", ["lorafa", "riemannian"])
    def test_optimizers_for_a_and_b_of_lora(self, name: str) -> None:
        create = getattr(peft.optimizers, f"create_{name}_optimizer")
        with pytest.raises(ConfigError, match=r"made for LoRA's A and B.*loraplus_optimizer"):
            create(tuned(), r=4, lora_alpha=8, lr=1e-3)

    def test_peft_goes_on_with_its_own(self, tmp_path: Path, ids: torch.Tensor) -> None:
        model, other = lora(), lora()
        other.save_pretrained(tmp_path)
        hotswap_adapter(model, str(tmp_path), "default", torch_device="cpu")
        with torch.no_grad():
            assert torch.equal(model(ids).logits, other(ids).logits)
        assert len(create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=4).param_groups) == 4
        get_peft_model(tiny_llama(), LoraConfig(target_modules=MLP), mixed=True)

    @pytest.mark.parametrize("name", ["weight", "forward", "keys"])
    def test_an_adapters_name_that_torch_uses(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"can't be named '{name}'"):
            get_peft_model(tiny_llama(), HydraLoraConfig(target_modules=MLP), adapter_name=name)


class TestLoraPlus:
    def test_heads_learn_faster_than_the_rest(self) -> None:
        model = tuned(router_bias=True).train()
        optimizer = loraplus_optimizer(
            model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8, loraplus_weight_decay=0.1, betas=(0.8, 0.9)
        )
        rates = {
            id(parameter): (group["lr"], group["weight_decay"], group["betas"])
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert len(rates) == len(named) == 6 * 4
        for name, parameter in named.items():
            fast, bias = "hydra_B" in name or name.endswith("bias"), name.endswith("bias")
            assert rates[id(parameter)] == (8e-3 if fast else 1e-3, 0 if bias else 0.1, (0.8, 0.9)), name

    def test_pefts_own_says_what_to_use(self) -> None:
        with pytest.raises(ConfigError, match=r"heads A's learning rate.*hydralora\.loraplus_optimizer"):
            create_loraplus_optimizer(tuned(), torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8)

    @pytest.mark.parametrize("make", [tiny_llama, lora])
    def test_a_model_without_trained_heads_is_refused(self, make: Any) -> None:
        with pytest.raises(ConfigError, match="no HydraLoRA head that is trained"):
            loraplus_optimizer(make(), torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8)


class TestConfig:
    def test_names_are_a_set_and_saved_in_order(self, tmp_path: Path) -> None:
        names = [f"name{i}" for i in range(30)]
        config = HydraLoraConfig(target_modules=names, exclude_modules=names[:9])
        assert (config.target_modules, config.exclude_modules) == (set(names), set(names[:9]))
        config.save_pretrained(str(tmp_path))
        saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
        assert (saved["target_modules"], saved["exclude_modules"]) == (sorted(names), sorted(names[:9]))
        again = HydraLoraConfig.from_pretrained(str(tmp_path))
        assert again == config
        assert isinstance(again.target_modules, set)

    def test_default_layers_are_a_set_too(self) -> None:
        assert adapt(tiny_llama(), target_modules=None).peft_config["default"].target_modules == set(MLP)

    def test_a_saved_adapter_is_one_of_pefts(self, tmp_path: Path) -> None:
        tuned().save_pretrained(tmp_path)
        assert check_if_peft_model(str(tmp_path))


class TestStateDict:
    @pytest.mark.parametrize("prefix", ["base_model.model.", ""])
    def test_layers_are_chosen_by_its_keys(self, prefix: str, ids: torch.Tensor) -> None:
        model = tuned()
        state = {
            prefix + key.removeprefix("base_model.model."): value
            for key, value in get_peft_model_state_dict(model).items()
        }
        config = HydraLoraConfig(r=4, target_modules=MLP)
        plain = inject_adapter_in_model(config, tiny_llama(), state_dict=state)
        result: Any = set_peft_model_state_dict(plain, state)
        assert not result.unexpected_keys
        with torch.no_grad():
            assert torch.equal(plain.eval()(ids).logits, model(ids).logits)

    @pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")  # PEFT's own, of LoRA too
    def test_one_of_another_model_is_named(self) -> None:
        state = get_peft_model_state_dict(shake(adapt(tiny_gpt2(), target_modules=["c_fc"])))
        with pytest.raises(
            ConfigError, match=r"no layer to adapt with a state dict of \d keys, such as 'transformer\.h\.0"
        ):
            inject_adapter_in_model(HydraLoraConfig(target_modules=MLP), tiny_llama(), state_dict=state)

    def test_saved_names_are_those_of_the_first_version(self, tmp_path: Path) -> None:
        tuned(router_bias=True, layers_to_transform=[0], target_modules=["up_proj"]).save_pretrained(tmp_path)
        layer = "base_model.model.model.layers.0.mlp.up_proj"
        assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
            f"{layer}.hydra_A.weight",
            f"{layer}.hydra_B",
            f"{layer}.hydra_router.weight",
            f"{layer}.hydra_router.bias",
        }


class TestRanksAndScales:
    def test_patterns_are_pefts(self, tmp_path: Path, ids: torch.Tensor) -> None:
        patterns: dict[str, Any] = {
            "rank_pattern": {"up_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
            "alpha_pattern": {"layers.0.mlp.gate_proj": 32},
        }
        for rslora in (False, True):
            ours = tuned(use_rslora=rslora, lora_alpha=12, **patterns)
            config = LoraConfig(r=4, lora_alpha=12, use_rslora=rslora, target_modules=MLP, **patterns)
            theirs: Any = get_peft_model(tiny_llama(), config).get_base_model()
            for name, layer in hydra_layers(ours).items():
                twin = theirs.get_submodule(name)
                assert layer.scaling["default"] == twin.scaling["default"], name
                assert layer.hydra_A["default"].get_parameter("weight").shape == twin.lora_A["default"].weight.shape
                assert layer.hydra_B["default"].shape == (3, twin.r["default"], twin.out_features)
            ours.save_pretrained(tmp_path)
            again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
            with torch.no_grad():
                assert torch.equal(again(ids).logits, ours(ids).logits)

    def test_heads_that_start_random_change_the_output(self, ids: torch.Tensor) -> None:
        with torch.no_grad():
            model = adapt(tiny_llama(), init_weights=False)
            assert not torch.allclose(model(ids).logits, tiny_llama()(ids).logits, atol=1e-3)
        for layer in hydra_layers(model).values():
            heads = layer.hydra_B["default"].detach()
            assert 0.9 / math.sqrt(4) < float(heads.abs().max()) <= 1 / math.sqrt(4)  # as nn.Linear starts LoRA's B
            assert not torch.allclose(heads[0], heads[1])
        with pytest.raises(ConfigError, match=r"head_init='centred' and init_weights=False"):
            HydraLoraConfig(head_init="centred", init_weights=False)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"rank_pattern": {"up_proj": 0}},
            {"rank_pattern": {"up_proj": 2.5}},
            {"rank_pattern": ["up_proj"]},
            {"alpha_pattern": {"up_proj": "8"}},
            {"alpha_pattern": {"up_proj": math.inf}},
            {"rank_pattern": {"up_(proj": 2}},
        ],
        ids=str,
    )
    def test_wrong_patterns_are_refused_by_name(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            HydraLoraConfig(**wrong)


def test_status_and_gradients_are_read_by_pefts_functions() -> None:
    model = tuned()
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj"]))
    status = next(status for status in peft.get_layer_status(model) if status.name.endswith("layers.0.mlp.up_proj"))
    assert status.available_adapters == ["default", "second"]
    assert status.requires_grad == {"default": True, "second": False}
    whole = peft.get_model_status(model)
    assert (whole.active_adapters, whole.enabled, whole.merged_adapters) == (["default"], True, [])
    model.set_requires_grad("second", True)
    assert hydra_layers(model)["model.layers.0.mlp.up_proj"].hydra_B["second"].requires_grad


@torch.no_grad()
def test_gates_of_beams_are_those_of_one_pass_over_the_answers(ids: torch.Tensor) -> None:
    """`joined` doesn't line up with what beams return; one more pass does, as its docstring says."""
    model = tuned()
    model.generation_config.eos_token_id = None
    with record_gates(model) as record:
        answers = model.generate(
            input_ids=ids[:1], attention_mask=torch.ones_like(ids[:1]), num_beams=4, max_new_tokens=6, pad_token_id=0
        )
        beams = record.joined()
        model(answers[:, :-1])
    assert beams.shape[1] == 4  # rows of `joined` are beams, as they were at each step
    assert record.stacked().shape == (6, 1, 15, 3)


def test_unloading_gives_the_base_back(ids: torch.Tensor) -> None:
    base = tuned().unload()
    assert not hydra_layers(base)
    with torch.no_grad():
        assert torch.equal(base(ids).logits, tiny_llama()(ids).logits)


def test_the_bases_weights_are_read_and_set_under_their_own_names(ids: torch.Tensor) -> None:
    model, other = tuned(), tiny_llama(seed=3)
    weights = get_base_model_state_dict(model)
    assert weights.keys() == tiny_llama().state_dict().keys()
    set_base_model_state_dict(model, other.state_dict())
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(ids).logits, other(ids).logits)


@torch.no_grad()
def test_steered_gates_reach_the_rows_of_the_active_adapter(ids: torch.Tensor) -> None:
    model = tuned()
    with steer_gates(model, pin=1):
        whole = model(ids).logits
        mixed = model(input_ids=ids, adapter_names=["default", "__base__", "default"]).logits
    torch.testing.assert_close(mixed[[0, 2]], whole[[0, 2]], atol=1e-5, rtol=0)
