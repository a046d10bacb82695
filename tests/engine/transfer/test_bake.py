"""A baked LoRA: what it equals, how far from the routed model it says it is, and who can read it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from hydralora import ConfigError, HydraLoraConfig, ModelError, bake, record_gates, steer_gates
from hydralora.tuner.model import active_router, hydra_layers
from tests.tiny_model import adapt, shake, tiny_gpt2, tiny_llama

Batches = list[dict[str, torch.Tensor]]

FRESH_PROCESS = """
import sys, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

base, ids, *adapters = sys.argv[1:]
ids = load_file(ids)["ids"]
for adapter in adapters:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        logits = model(ids).logits
        merged = model.merge_and_unload()
        save_file({"logits": logits, "merged": merged(ids).logits}, f"{adapter}/out.safetensors")
    assert not any("lora" in name for name, _ in merged.named_modules())
assert not any(name.startswith("hydralora") for name in sys.modules)
"""


@pytest.fixture
def batches() -> Batches:
    """Two batches: answers labelled, rows padded left and right, then one of full rows without labels or mask."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 261, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :3] = mask[1, 7:] = 0
    labels = ids.clone()
    labels[:, :4] = -100
    labels[mask == 0] = -100
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": labels},
        {"input_ids": torch.randint(5, 261, (3, 6), generator=generator)},
    ]


def stock(baked: Any, folder: Path, base: nn.Module | None = None) -> Any:
    """The baked adapter as PEFT loads it."""
    baked.save(folder)
    return PeftModel.from_pretrained(base or tiny_llama(), str(folder)).eval()


def predicted(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Rows of logits, or of gates, (tokens, ...), at those positions whose next token counts."""
    labels = batch.get("labels", batch["input_ids"])
    return torch.stack(
        [logits[i, t] for i in range(len(labels)) for t in range(labels.shape[1] - 1) if labels[i, t + 1] != -100]
    )


def ask(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask")).logits


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("head", [0, 2])
@torch.no_grad()
def test_a_head_alone_equals_that_head_pinned(head: int, shared: bool, tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), shared_A=shared))
    baked = bake(model, head)
    lora = stock(baked, tmp_path)
    with steer_gates(model, pin=head):
        pinned = model(ids).logits
    torch.testing.assert_close(lora(ids).logits, pinned, atol=1e-5, rtol=0)
    assert not torch.allclose(pinned, model(ids).logits, atol=1e-2)
    assert baked.config.r == 4
    assert baked.weights["model.layers.0.mlp.up_proj"] == [float(i == head) for i in range(3)]


@torch.no_grad()
def test_it_loads_and_merges_in_a_process_without_this_package(
    tmp_path: Path, model_folder: Path, ids: torch.Tensor
) -> None:
    wanted = {}
    for shared in (True, False):
        model = shake(adapt(tiny_llama(), shared_A=shared, lora_alpha=6.5))
        folder = str(tmp_path / f"lora-{shared}")
        bake(model, [0.2, 0.3, 0.5]).save(folder)
        for layer in hydra_layers(model).values():
            active_router(layer).steering = lambda logits: torch.tensor([0.2, 0.3, 0.5]).expand_as(logits)
        wanted[folder] = model(ids).logits
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    command = [sys.executable, "-c", FRESH_PROCESS, str(model_folder), str(tmp_path / "ids.safetensors"), *wanted]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "peft" not in done.stderr.lower()  # it would warn of keys missing or unknown
    for folder, logits in wanted.items():
        found = load_file(Path(folder) / "out.safetensors")
        torch.testing.assert_close(found["logits"], logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(found["merged"], found["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{"router": "uniform"}, {"num_heads": 1}, {"router": "uniform", "num_heads": 6}])
@torch.no_grad()
def test_it_is_exact_where_gates_never_change(
    settings: dict[str, Any], tmp_path: Path, ids: torch.Tensor, batches: Batches
) -> None:
    model = shake(adapt(tiny_llama(), **settings))
    baked = bake(model, batches=batches)
    assert baked.kl == pytest.approx(0, abs=1e-7)
    torch.testing.assert_close(stock(baked, tmp_path)(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"router_input": "hidden"}, {"top_k": 2}, {"shared_A": False}], ids=str)
@torch.no_grad()
def test_mean_is_each_layers_mean_gates_and_kl_is_the_loras(
    settings: dict[str, Any], tmp_path: Path, batches: Batches
) -> None:
    model = shake(adapt(tiny_llama(), num_heads=3, **settings))
    baked = bake(model, batches=iter(batches))
    means: dict[str, list[torch.Tensor]] = {}
    divergences: list[torch.Tensor] = []
    lora = stock(baked, tmp_path)
    for batch in batches:
        with record_gates(model) as record:
            routed = ask(model, batch)
        for name, gates in zip(record.modules, record.stacked(), strict=True):
            means.setdefault(name, []).append(predicted(gates, batch))
        p, q = (predicted(logits, batch).double().log_softmax(-1) for logits in (routed, ask(lora, batch)))
        divergences.append((p.exp() * (p - q)).sum(-1))
    assert set(baked.weights) == set(means) == set(hydra_layers(model))
    for name, gates in means.items():
        torch.testing.assert_close(torch.tensor(baked.weights[name]), torch.cat(gates).mean(0), atol=1e-6, rtol=0)
    assert len({tuple(shares) for shares in baked.weights.values()}) == 6  # every layer has its own
    wanted = torch.cat(divergences)
    assert baked.tokens == len(wanted) == 5 + 3 + 3 * 5
    assert baked.kl == pytest.approx(float(wanted.mean()), rel=1e-4)
    assert wanted.mean() > 1e-4
    assert f"{baked.kl:.4g} nats per token" in baked.describe()


@torch.no_grad()
def test_padding_and_the_split_into_batches_change_nothing(batches: Batches) -> None:
    model = shake(adapt(tiny_llama()))
    rows = [{"input_ids": row[None]} for row in batches[1]["input_ids"]]
    padded = torch.zeros(3, 10, dtype=torch.long)
    padded[:, 2:8] = batches[1]["input_ids"]
    mask = (padded != 0).long()
    together = bake(model, batches=[{"input_ids": padded, "attention_mask": mask}])
    apart = bake(model, batches=rows)
    assert together.tokens == apart.tokens == 15
    assert together.kl == pytest.approx(apart.kl, rel=1e-3)
    for name, shares in apart.weights.items():
        assert together.weights[name] == pytest.approx(shares, abs=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_others_find_what_a_plain_lora_has(shared: bool, tmp_path: Path) -> None:
    """The keys that vLLM checks, and the pairs that llama.cpp's converter looks for."""
    model = shake(adapt(tiny_llama(), shared_A=shared, lora_alpha=6, lora_dropout=0.1))
    bake(model, [1, 2, 3]).save(tmp_path / "lora")
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text(encoding="utf-8"))
    LoraConfig(target_modules=["q_proj"]).save_pretrained(str(tmp_path / "plain"))
    assert set(config) == set(json.loads((tmp_path / "plain" / "adapter_config.json").read_text(encoding="utf-8")))
    rank = 4 if shared else 12
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"]) == (rank, 6 if shared else 18)
    assert isinstance(config["lora_alpha"], int)
    assert config["lora_dropout"] == 0.1
    assert config["target_modules"] == ["down_proj", "gate_proj", "up_proj"]
    assert config["task_type"] == "CAUSAL_LM"
    assert not any(config[key] for key in ("use_dora", "use_rslora", "modules_to_save", "fan_in_fan_out", "lora_bias"))
    assert config["bias"] == "none"
    base = dict(tiny_llama().named_parameters())
    weights = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert len(weights) == 12
    for key, value in weights.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", key)
        assert match, key
        out, into = base[f"{match[1]}.weight"].shape
        assert value.shape == ((rank, into) if match[2] == "A" else (out, rank))
        assert key.replace("lora_A", "lora_B") in weights


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r".*\.0\..*(q|down)_proj"},
        {"target_modules": "all-linear"},
        {"layers_to_transform": [1]},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"exclude_modules": ["gate_proj"]},
        {"target_modules": None},
        {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"layers.0.mlp.down_proj": 7}},
        {"rank_pattern": {"up_proj": 2}, "use_rslora": True},
        {"rank_pattern": {"up_proj": 2}, "use_rslora": True, "shared_A": False},
    ],
    ids=str,
)
@torch.no_grad()
def test_the_same_layers_are_adapted(settings: dict[str, Any], tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), **settings))
    lora = stock(bake(model, 1), tmp_path)
    adapted = {name for name, module in lora.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert adapted == set(hydra_layers(model))
    with steer_gates(model, pin=1):
        torch.testing.assert_close(lora(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_several_heads_of_their_own_a_and_unlike_ranks_are_stacked(tmp_path: Path, ids: torch.Tensor) -> None:
    settings: dict[str, Any] = {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"gate_proj": 9}, "use_rslora": True}
    model = shake(adapt(tiny_llama(), shared_A=False, router="uniform", **settings))
    baked = bake(model, [1 / 3] * 3)
    assert "of rank 6 to 12 on 6 layers" in baked.describe()
    torch.testing.assert_close(stock(baked, tmp_path)(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_changed_scale_is_baked_in(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), router="uniform"))
    for layer in hydra_layers(model).values():
        layer.set_scale("default", 0.3)
    torch.testing.assert_close(
        stock(bake(model, [1 / 3] * 3), tmp_path)(ids).logits, model(ids).logits, atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_conv1d_layers_of_gpt2(tmp_path: Path, ids: torch.Tensor, batches: Batches) -> None:
    model = shake(adapt(tiny_gpt2(), target_modules=["c_attn", "c_fc"], router="uniform"))
    lora = stock(bake(model, batches=batches), tmp_path, tiny_gpt2())
    torch.testing.assert_close(lora(ids).logits, model(ids).logits, atol=1e-5, rtol=0)
    merged = lora.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_bfloat16_model_is_baked(tmp_path: Path, batches: Batches) -> None:
    baked = bake(shake(adapt(tiny_llama().to(torch.bfloat16))).to(torch.bfloat16), batches=batches)
    assert {value.dtype for value in baked.state.values()} == {torch.bfloat16}
    assert baked.kl is not None
    assert 0 < baked.kl < 10


@torch.no_grad()
def test_modules_to_save_are_carried_over(tmp_path: Path, ids: torch.Tensor, batches: Batches) -> None:
    model = shake(adapt(tiny_llama(), modules_to_save=["lm_head"], router="uniform"))
    next(p for name, p in model.named_parameters() if p.requires_grad and "lm_head" in name).mul_(2)
    baked = bake(model, batches=batches)
    lora = stock(baked, tmp_path)
    torch.testing.assert_close(lora(ids).logits, model(ids).logits, atol=1e-5, rtol=0)
    assert torch.equal(baked.state["base_model.model.lm_head.weight"], 2 * tiny_llama().lm_head.weight)
    assert len(baked.state) == 2 * 6 + 1
    assert "lm_head" in baked.describe()
    assert "vLLM" in baked.describe()
    assert "vLLM" not in bake(shake(adapt(tiny_llama())), 0).describe()


@torch.no_grad()
def test_the_active_adapter_is_the_one_baked(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["q_proj"]))
    shake(model, seed=2).set_adapter("second")
    baked = bake(model, 4)
    assert (baked.config.r, baked.config.target_modules) == (2, ["q_proj"])
    with steer_gates(model, pin=4):
        torch.testing.assert_close(stock(baked, tmp_path)(ids).logits, model(ids).logits, atol=1e-5, rtol=0)
    assert model.active_adapter == "second"


def snapshot(model: Any) -> Iterator[tuple[object, ...]]:
    for name, module in model.named_modules():
        yield name, module.training, getattr(module, "steering", None), len(getattr(module, "listeners", ()))
        yield len(module._forward_hooks), len(module._forward_pre_hooks)
    for name, parameter in model.named_parameters():
        yield name, parameter.requires_grad, parameter.grad is None, parameter.device, parameter.tolist()
    yield (model.active_adapter, torch.get_rng_state().tolist())


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool, batches: Batches) -> None:
    model = shake(adapt(tiny_llama(), lora_dropout=0.5, head_dropout=0.5)).train()
    model.get_base_model().model.layers[0].mlp.eval()  # not everything in one mode
    before = list(snapshot(model))
    if fails:
        with pytest.raises(IndexError):
            bake(model, batches=[batches[0], {"input_ids": torch.tensor([[7, 9999]])}])
    else:
        first, again = bake(model, batches=batches), bake(model, batches=batches)
        assert (first.kl, first.weights) == (again.kl, again.weights)  # no dropout
    assert list(snapshot(model)) == before


def test_weights_are_used_as_they_are() -> None:
    model = shake(adapt(tiny_llama()))
    baked = bake(model, [2, -1, 0.5])
    heads = hydra_layers(model)["model.layers.1.mlp.down_proj"].hydra_B["default"].detach()  # (N, r, out)
    found = baked.state["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"]
    torch.testing.assert_close(found, (2 * heads[0] - heads[1] + 0.5 * heads[2]).T)
    assert "sum to 1.5" in baked.describe()
    assert "sum to" not in bake(model, [0.2, 0.3, 0.5]).describe()


def test_without_batches_it_says_that_nothing_was_measured() -> None:
    baked = bake(shake(adapt(tiny_llama())), 1)
    assert (baked.kl, baked.tokens) == (None, 0)
    assert "head 1 alone" in baked.describe()
    assert "approximation" in baked.describe()
    assert "not measured" in baked.describe()


def test_the_card_says_what_it_is(tmp_path: Path, batches: Batches) -> None:
    baked = bake(shake(adapt(tiny_llama())), batches=batches)
    baked.save(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert baked.describe() in card
    assert "import hydralora" not in card


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("mean", "Give batches"),
        ("median", "'median'"),
        (3, "head 3; the adapter's heads are 0 to 2"),
        (-1, "head -1"),
        (True, "True"),
        ([0.5, 0.5], "for 3 heads"),
        ([0, 0, 0], "not all 0"),
        ([1, float("nan"), 0], "finite"),
        (None, "None"),
        (["a", "b", "c"], "'a'"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bake(adapt(tiny_llama()), weights)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "predict no token"),
        ([{"input_ids": torch.tensor([[7]])}], "predict no token"),
        ([{"input_ids": torch.tensor([[7, 8]]), "labels": torch.tensor([[7, -100]])}], "predict no token"),
        ([{"labels": torch.tensor([[7, 8]])}], "found labels"),
        ({"input_ids": torch.tensor([[7, 8]])}, "found str"),
    ],
)
def test_batches_that_measure_nothing_are_refused(batches: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bake(adapt(tiny_llama()), 0, batches)


def test_a_model_whose_gates_are_not_its_own_is_refused(batches: Batches) -> None:
    model = shake(adapt(tiny_llama()))
    with steer_gates(model, pin=0), pytest.raises(ConfigError, match="steered"):
        bake(model, batches=batches)
    with model.disable_adapter(), pytest.raises(ConfigError, match="switched off"):
        bake(model, batches=batches)
    with pytest.raises(ConfigError, match="0 HydraLoRA adapters"):
        bake(tiny_llama(), 0)


def test_a_layer_that_no_batch_reaches_is_named(batches: Batches) -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.idle_proj = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.idle_proj"):
        bake(adapt(model, target_modules=["up_proj", "idle_proj"]), batches=batches)


def test_the_adapter_that_was_baked_is_never_overwritten(tmp_path: Path) -> None:
    model = shake(adapt(tiny_llama()))
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="would be lost"):
        bake(model, 0).save(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match="can't be written"):
        bake(model, 0).save(tmp_path / "file")
