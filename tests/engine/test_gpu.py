"""What needs CUDA: bfloat16, 4-bit bases, compiled layers, peak memory, the bench. `make test-gpu` runs these."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from hydralora import record_gates, train
from hydralora.inference.loss import answer_logits, answer_loss, summed_answer_loss
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event, training_losses
from hydralora.training.monitor import Monitor
from tests.known import loss_of
from tests.tiny_model import MLP, adapt, shake, tiny_llama

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
WIDE: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1536}


@torch.no_grad()
def test_a_gpu_gives_what_the_cpu_gives(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=4))
    with record_gates(model) as record:
        wanted = model(ids).logits
        model.cuda()
        found = model(ids.cuda()).logits
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-3, rtol=1e-3)
    assert all(gates.device.type == "cpu" and gates.dtype == torch.float32 for gates in record.passes)
    torch.testing.assert_close(record.passes[1], record.passes[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_run_learns_and_its_adapter_comes_back(
    quantization: str, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe(max_steps=30, learning_rate=1e-2)
    recipe.quantization = quantization  # type: ignore[assignment]
    events: list[Event] = []
    results = train(recipe, tmp_path, Monitor(events.append))
    losses = [loss for _, loss in training_losses(events)]
    assert losses[-1] < losses[0]
    assert loss_of(results.tuned) < loss_of(results.base)
    from hydralora.models.adapters import load_adapted
    from hydralora.models.catalogue import find_model

    again = load_adapted(find_model(recipe.model), tmp_path)
    assert all(weight.dtype == torch.float32 for name, weight in again.named_parameters() if "hydra_" in name)


def test_bfloat16_and_checkpointing_give_finite_gradients(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama().to(torch.bfloat16), num_heads=4)).cuda().train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model(input_ids=ids.cuda(), labels=ids.cuda()).loss.backward()
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    assert learnt
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learnt)


def test_a_compiled_model_gives_what_the_eager_one_gives(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=4)).cuda()
    wanted = model(ids.cuda()).logits
    compiled = torch.compile(model.get_base_model(), fullgraph=True)
    found = compiled(ids.cuda()).logits
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def peak(model: Any) -> int:
    """Bytes at the peak of a training step, beside what the model itself holds."""
    ids = torch.randint(5, 261, (8, 512), generator=torch.Generator().manual_seed(0)).cuda()
    model = model.cuda().train()
    model(input_ids=ids, labels=ids).loss.backward()  # libraries take their workspaces
    model.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(input_ids=ids, labels=ids).loss.backward()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def test_peak_memory_is_that_of_a_lora() -> None:
    lora = get_peft_model(tiny_llama(**WIDE).to(torch.bfloat16), LoraConfig(r=8, target_modules=MLP))
    theirs = peak(lora)
    del lora
    assert peak(adapt(tiny_llama(**WIDE).to(torch.bfloat16), r=8, num_heads=3)) <= 1.05 * theirs


def test_an_adapter_is_loaded_onto_the_gpu(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=4))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama().cuda(), str(tmp_path)).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids.cuda()).logits.cpu(), model(ids).logits, atol=1e-3, rtol=1e-3)


def test_the_bench_runs(user_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hydralora.cli", "bench", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=user_environment)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["agreement"].values()) < 5e-2


def test_the_fused_loss_of_the_library_is_the_same(ids: torch.Tensor) -> None:
    pytest.importorskip("liger_kernel")
    model = shake(adapt(tiny_llama(), num_heads=4)).cuda()
    ids = ids.cuda()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    fused, count = summed_answer_loss(model, batch)
    assert count == ids[:, 1:].numel()
    plain = answer_loss(*answer_logits(model, batch)).sum()
    torch.testing.assert_close(fused, plain, atol=1e-2, rtol=1e-3)
    for mine, whole in zip(torch.autograd.grad(fused, learnt), torch.autograd.grad(plain, learnt), strict=True):
        torch.testing.assert_close(mine, whole, atol=1e-2, rtol=1e-2)
