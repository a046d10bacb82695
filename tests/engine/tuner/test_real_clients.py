"""Real programs around the layer: TRL's trainers, and models sharded over two processes. LoRA goes through the same."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file

from hydralora import HydraLoraConfig
from tests.engine.tuner.sharded_model import STEPS, batch, trained, tuned
from tests.tiny_model import MLP, byte_tokenizer, tiny_llama

OLD_NAME = (
    "ignore:`gradient_checkpointing(_disable|_enable)?` is deprecated:FutureWarning"  # TRL asks transformers by it
)


def trl(test: Any) -> Any:
    """Marks a test of TRL."""
    return pytest.mark.slow(pytest.mark.filterwarnings(OLD_NAME)(test))


ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Logits before and after each step, by method, kind of sharding and step, from two gloo processes."""
    out = tmp_path_factory.mktemp("sharded") / "logits.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = [*launcher, "--nproc_per_node", "2", "-m", "tests.engine.tuner.sharded_model", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return load_file(out)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "hydralora"])
@pytest.mark.parametrize("kind", ["fsdp1", "fsdp2"])
def test_a_sharded_model_learns_what_a_whole_one_does(method: str, kind: str, sharded: dict[str, torch.Tensor]) -> None:
    whole = trained(tuned(method), batch())
    assert float((whole[-1] - whole[0]).abs().max()) > 0.5  # the steps do change something
    for step in range(STEPS + 1):
        torch.testing.assert_close(sharded[f"{method}.{kind}.{step}"], whole[step], atol=2e-5, rtol=0)


def arguments(folder: Path, config: Any, **settings: Any) -> Any:
    """A few steps of a TRL trainer, on the CPU and without output."""
    return config(
        output_dir=str(folder),
        max_steps=8,
        per_device_train_batch_size=4,
        learning_rate=5e-2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        **settings,
    )


def losses(trainer: Any) -> list[float]:
    """Of each step."""
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def adapter_config(method: str) -> Any:
    settings: dict[str, Any] = {"r": 4, "target_modules": MLP, "task_type": "CAUSAL_LM"}
    return HydraLoraConfig(**settings) if method == "hydralora" else LoraConfig(**settings)


def trls(kind: Any, settings: Any, rows: list[dict[str, Any]], method: str, folder: Path) -> Any:
    """One of TRL's trainers, of a new adapter on the tiny model."""
    return kind(
        model=tiny_llama(),
        args=arguments(folder, settings, max_length=64),
        train_dataset=Dataset.from_list(rows),
        processing_class=byte_tokenizer(),
        peft_config=adapter_config(method),
    )


@trl
@pytest.mark.parametrize("method", ["lora", "hydralora"])
def test_trls_sft_trains_and_saves_an_adapter(method: str, tmp_path: Path, ids: torch.Tensor) -> None:
    from trl import SFTConfig, SFTTrainer

    words = ("plum", "fig", "saw", "nut")
    rows = [
        {"prompt": [{"role": "user", "content": word}], "completion": [{"role": "assistant", "content": word * 2}]}
        for word in words * 4
    ]
    trainer = trls(SFTTrainer, SFTConfig, rows, method, tmp_path)
    of_steps = losses(trainer)
    assert len(of_steps) == 8
    assert of_steps[-1] < of_steps[0] - 0.2
    trainer.save_model(str(tmp_path / "adapter"))
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, trainer.model.eval()(ids).logits)
        assert not torch.allclose(again(ids).logits, tiny_llama()(ids).logits, atol=1e-2)


@trl
@pytest.mark.parametrize("method", ["lora", "hydralora"])
def test_trls_dpo_learns_a_preference(method: str, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": f"fruit {i}?", "chosen": " plum", "rejected": " saw"} for i in range(16)]
    trainer = trls(DPOTrainer, DPOConfig, rows, method, tmp_path)
    of_steps = losses(trainer)
    assert of_steps[0] == pytest.approx(math.log(2), abs=1e-4)  # the untrained adapter is its own reference
    assert of_steps[-1] < 0.8 * of_steps[0]
    assert trainer.state.log_history[-2]["rewards/margins"] > 0.5
