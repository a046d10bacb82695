"""How long the parameters' pictures take: python -m tests.benchmarks.exploring [--busy].

Of adapters as large as real ones, with numbers of their own kind: SmolLM2-135M with 3 heads (360 matrices), and a 7B
model's MLP layers (384 matrices of up to 88,064 numbers). Told are the seconds of each projection, from the adapter's
file to the figures, and the memory of the process. With --busy all cores but one compute something else meanwhile, as
a run's worker does, at its lower priority.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from hydralora import HydraLoraConfig
from hydralora.analysis import matrices, project_matrices, read_weights
from hydralora.figures import group_figure
from hydralora.files import ADAPTER_WEIGHTS
from hydralora.projection import Method

SHAPES = {"135M": (30, 576, 1536), "7B": (32, 4096, 11008)}  # blocks, hidden size, the MLP's
HEADS, RANK = 3, 8
METHODS: tuple[Method, ...] = ("pca", "tsne", "umap")
BURN = "import os\nos.nice(5)\nwhile True: pass"


def write_adapter(folder: Path, blocks: int, hidden: int, wide: int) -> None:
    """Heads that have parted from a common direction, and A's at their start."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for block in range(blocks):
        for name, inside, outside in (("gate", hidden, wide), ("up", hidden, wide), ("down", wide, hidden)):
            module = f"base_model.model.model.layers.{block}.mlp.{name}_proj"
            common = torch.randn(1, RANK, outside, generator=generator)
            own = torch.randn(HEADS, RANK, outside, generator=generator)
            weights[f"{module}.hydra_A.weight"] = torch.randn(RANK, inside, generator=generator) / inside**0.5
            weights[f"{module}.hydra_B"] = (common + own / 2) / 100
    HydraLoraConfig(r=RANK, num_heads=HEADS, target_modules=["gate_proj", "up_proj", "down_proj"]).save_pretrained(
        str(folder)
    )
    save_file(weights, folder / ADAPTER_WEIGHTS)


def measure(folder: Path, method: Method, dims: int) -> float:
    """Seconds from the file to the figures."""
    began = time.monotonic()
    found = matrices(read_weights(folder), "a run")
    for group in project_matrices(found, method, dims):
        group_figure(group, "head")
    return time.monotonic() - began


def one(name: str) -> None:
    """In a process of its own: every method, the second time too; as JSON."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(Path(folder), *SHAPES[name])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = {
            f"{method}, {dims}-D": [measure(Path(folder), method, dims) for _ in range(2)]
            for method in METHODS
            for dims in (2, 3)
        }
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "before": before, "after": after}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--one", choices=SHAPES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one(chosen.one)
        return
    count = max(1, (os.cpu_count() or 2) - 1) if chosen.busy else 0
    burning = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        for name in SHAPES:
            command = [sys.executable, "-m", "tests.benchmarks.exploring", "--one", name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{name}: at most {found['after'] / 2**20:.2f} GB, of which {found['before'] / 2**20:.2f} GB to begin"
            )
            for method, (cold, warm) in found["seconds"].items():
                print(f"  {method:10} first {cold:5.2f} s, then {warm:5.2f} s")
    finally:
        for process in burning:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
