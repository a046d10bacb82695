"""How right the estimate of a run is: python -m tests.benchmarks.estimating [--steps 40].

Each of a few runs of the demo on the default base model is estimated by a trial, then done, on an idle machine; both
are processes of their own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from hydralora.data.demo import demo_file
from hydralora.models.catalogue import DEFAULT_MODEL

RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "the demo's": {"training": {}},
    "a LoRA, batches of 4 x 2": {"training": {"batch_size": 4, "gradient_accumulation": 2}, "tuner": {"r": 24}},
    "activations computed again": {"training": {"gradient_checkpointing": True, "batch_size": 16}},
}


def command(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "hydralora.cli", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    chosen = parser.parse_args()
    for name, settings in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder) / "recipe.yaml"
            values = {
                "model": DEFAULT_MODEL,
                "method": "lora" if "LoRA" in name else "hydralora",
                "data": {"train": str(demo_file("train")), "eval": str(demo_file("heldout"))},
                "tuner": settings.get("tuner", {}),
                "training": {"max_steps": chosen.steps} | settings["training"],
            }
            recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
            told = command("estimate", str(recipe))
            run = command("train", str(recipe), "--follow", "--workspace", folder)["run"]
            took = command("show", run, "--workspace", folder)["results"]
            files = [path for path in (Path(folder) / "runs" / run).rglob("*") if path.is_file()]
            disk = sum(path.stat().st_size for path in files)
        print(f"{name}: estimated / taken")
        for what, one, other in (
            ("seconds", told["seconds"], took["total_seconds"]),
            ("memory", told["memory_bytes"] / 2**30, took["peak_memory_bytes"] / 2**30),
            ("disk", told["disk_bytes"] / 2**20, disk / 2**20),
        ):
            print(f"  {what:8} {one:8.2f} / {other:8.2f} = {one / other:.2f}", flush=True)


if __name__ == "__main__":
    main()
