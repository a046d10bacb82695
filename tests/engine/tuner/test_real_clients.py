"""Real programs around the layer: TRL's trainers, and models sharded over two processes. LoRA goes through the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.tuner.sharded_model import STEPS, batch, trained, tuned

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
