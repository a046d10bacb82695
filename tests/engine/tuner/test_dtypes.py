"""Dtypes as PEFT's own LoRA has them; gradient checkpointing; torch.compile."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from hydralora import HydraLoraConfig, record_gates, train
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event, GatesEvent, TrainEvent
from hydralora.training.monitor import Monitor
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import hydra_layers
from tests.known import known
from tests.tiny_model import MLP, adapt, shake, tiny_gpt2, tiny_llama

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 4e-2}  # of the largest value, after a few roundings
COMPILED = [
    {},
    {"router_input": "hidden", "router_bias": True},
    {"top_k": 2},
    {"router": "uniform"},
    {"shared_A": False},
    {"lora_dropout": 0.3, "head_dropout": 0.3},
]


def as_lora(model: Any, base: Any, **options: Any) -> Any:
    """A LoRA with the A and the only head of every layer of `model`."""
    conv1d = any(isinstance(layer.base_layer, Conv1D) for layer in hydra_layers(model).values())
    targets = model.peft_config["default"].target_modules
    config = LoraConfig(r=4, lora_alpha=16, target_modules=targets, fan_in_fan_out=conv1d)
    lora: Any = get_peft_model(base, config, **options).eval()
    layers: dict[str, Any] = {
        name.removeprefix("base_model.model."): layer
        for name, layer in lora.named_modules()
        if isinstance(layer, LoraLayer)
    }
    with torch.no_grad():
        for name, layer in hydra_layers(model).items():
            layers[name].lora_A["default"].weight.copy_(layer.hydra_A["default"].get_parameter("weight"))
            layers[name].lora_B["default"].weight.copy_(layer.hydra_B["default"][0].T)
    return lora


def one_head_and_lora(make: Any, targets: list[str], dtype: torch.dtype, adapter_too: bool) -> tuple[Any, Any]:
    """The same adapter in both forms, in float32 or in the base's dtype."""
    options: dict[str, Any] = {"autocast_adapter_dtype": not adapter_too}
    config = HydraLoraConfig(r=4, lora_alpha=16, num_heads=1, target_modules=targets, task_type="CAUSAL_LM")
    model = shake(get_peft_model(make().to(dtype), config, **options)).eval()
    return model, as_lora(model, make().to(dtype), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("adapter_too", [False, True])
@pytest.mark.parametrize(("make", "targets"), [(tiny_llama, MLP), (tiny_gpt2, ["c_attn", "c_fc"])])
def test_one_head_is_a_lora(
    make: Any, targets: list[str], dtype: torch.dtype, autocast: bool, adapter_too: bool, ids: torch.Tensor
) -> None:
    ours, lora = one_head_and_lora(make, targets, dtype, adapter_too)
    adapters = {parameter.dtype for name, parameter in ours.named_parameters() if "hydra_" in name}
    assert adapters == {dtype if adapter_too else torch.float32}
    seen: list[list[tuple[str, torch.Tensor]]] = []
    for model, kind in ((ours, HydraLoraLayer), (lora, LoraLayer)):
        seen.append([])
        for name, layer in model.named_modules():
            if isinstance(layer, kind) and isinstance(layer, nn.Module):
                layer.register_forward_hook(
                    lambda module, args, output, name=name: seen[-1].append((name, output.detach()))
                )
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(ids).logits
        seen[-1].append(("logits", logits.detach()))
        logits.float().square().mean().backward()
    assert len(seen[0]) == len(seen[1]) > 4
    for (name, output), (same, wanted) in zip(*seen, strict=True):
        assert (name, output.dtype) == (same, wanted.dtype)
        rounding = CLOSE[torch.bfloat16 if autocast else dtype]
        torch.testing.assert_close(output, wanted, atol=rounding * float(wanted.abs().max()), rtol=0)
    assert not torch.allclose(seen[1][-1][1].float(), make()(ids).logits, atol=1e-2)
    gradients = {n.replace("hydra_A", "lora_A"): p.grad for n, p in ours.named_parameters() if "hydra_A" in n}
    for name, parameter in lora.named_parameters():
        if "lora_A" in name:
            scale = float(parameter.grad.abs().max())
            rounding = 4 * CLOSE[torch.bfloat16 if autocast else dtype]
            torch.testing.assert_close(gradients[name], parameter.grad, atol=rounding * scale, rtol=0)


def test_a_bfloat16_base_trains_a_float32_adapter(tmp_path: Path, ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = adapt(tiny_llama().to(torch.bfloat16)).train()
    before = copy.deepcopy(model.state_dict())
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in learnt} == {torch.float32}
    optimiser = torch.optim.AdamW(learnt, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != ("hydra_" in name), name
    model.eval().save_pretrained(tmp_path)
    assert {value.dtype for value in load_file(tmp_path / "adapter_model.safetensors").values()} == {torch.float32}
    again = PeftModel.from_pretrained(tiny_llama().to(torch.bfloat16), str(tmp_path)).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


class TestDoublePrecision:
    @pytest.mark.parametrize("settings", [{}, {"router_input": "hidden", "router_bias": True}, {"shared_A": False}])
    @pytest.mark.parametrize("training", [False, True])
    def test_gradients_are_exact(self, settings: dict[str, Any], training: bool) -> None:
        torch.manual_seed(0)
        layer = HydraLoraLayer(nn.Linear(5, 6), "default", HydraLoraConfig(r=2, num_heads=3, **settings))
        nn.init.normal_(layer.hydra_B["default"])
        layer.double().train(training)
        x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
        learnt = [parameter for name, parameter in layer.named_parameters() if "hydra_" in name]
        assert torch.autograd.gradcheck(lambda x, *parameters: layer(x), (x, *learnt))

    def test_gates_are_float64_and_recorded_as_float32(self, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama().double())).double()
        seen: list[torch.dtype] = []
        router = hydra_layers(model)["model.layers.0.mlp.up_proj"].hydra_router["default"]
        router.register_forward_hook(lambda module, args, gates: seen.append(gates.dtype))
        with record_gates(model) as record:
            model(ids)
        assert seen == [torch.float64]
        assert record.stacked().dtype == torch.float32


def gradients(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of one step whose dropout is drawn from a fixed seed."""
    model.zero_grad()
    torch.manual_seed(3)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("settings", [{}, {"router_input": "hidden"}, {"lora_dropout": 0.3, "head_dropout": 0.3}])
def test_gradient_checkpointing_changes_no_gradient(settings: Any, reentrant: bool, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), **settings)).train()
    calls: list[None] = []
    hydra_layers(model)["model.layers.0.mlp.up_proj"].register_forward_hook(lambda *args: calls.append(None))
    wanted = gradients(model, ids)
    assert len(calls) == 1
    if reentrant:  # it finds gradients only behind an input that has one
        model.enable_input_require_grads()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    found = gradients(model, ids)
    assert len(calls) == 3  # forward, and once more in the backward pass
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-5)


def compiled_as_eager(layer: nn.Module, x: torch.Tensor, backend: str) -> None:
    """Output and every gradient, of a layer compiled without a graph break."""
    upstream = torch.randn(layer(x).shape)
    learnt = [x, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    torch._dynamo.reset()
    results = []
    for function in (layer, torch.compile(layer, fullgraph=True, backend=backend)):
        torch.manual_seed(4)
        output = function(x)
        results.append([output, *torch.autograd.grad(output, learnt, upstream, allow_unused=True)])
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def a_layer(settings: dict[str, Any]) -> tuple[HydraLoraLayer, torch.Tensor]:
    torch.manual_seed(0)
    layer = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, num_heads=3, **settings))
    nn.init.normal_(layer.hydra_B["default"])
    return layer, torch.randn(2, 5, 12, requires_grad=True)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("settings", COMPILED, ids=lambda settings: "-".join(settings) or "default")
def test_compiling_a_layer_breaks_no_graph(settings: dict[str, Any], backend: str) -> None:
    layer, x = a_layer(settings)
    compiled_as_eager(layer, x, backend)


def test_compiling_a_whole_model_breaks_no_graph(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids, use_cache=False).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inductor's own
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("settings", COMPILED[:-1], ids=lambda settings: "-".join(settings) or "default")
def test_compiling_with_inductor(settings: dict[str, Any]) -> None:
    layer, x = a_layer(settings)
    compiled_as_eager(layer, x, "inductor")


def numbers(event: TrainEvent | GatesEvent) -> list[float]:
    return event.mean_gate if isinstance(event, GatesEvent) else [known(event.loss)]


def test_a_run_with_gradient_checkpointing_is_the_same_run(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    forward = HydraLoraLayer.forward

    def counted(self: HydraLoraLayer, x: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return forward(self, x)

    monkeypatch.setattr(HydraLoraLayer, "forward", counted)
    seen, passes = [], []
    for checkpointing in (False, True):
        events: list[Event] = []
        calls.clear()
        recipe = make_recipe(
            tuner={"lora_dropout": 0.2, "balance_weight": 0.1}, gradient_checkpointing=checkpointing, learning_rate=1e-2
        )
        train(recipe, tmp_path / str(checkpointing), Monitor(events.append))
        seen.append([numbers(event) for event in events if isinstance(event, TrainEvent | GatesEvent)])
        passes.append(len(calls))
    assert passes[1] == passes[0] + 8 * 6  # each of the 6 layers once more in each of the 8 steps
    assert len(seen[0]) > 8
    for wanted, found in zip(*seen, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
