"""Runs that several tests look at."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hydralora.recipe import Recipe, parse_recipe
from hydralora.runs import Run, RunStore


@pytest.fixture(scope="session")
def make_recipe(model_folder: Path, data_file: Path) -> Callable[..., Recipe]:
    """A recipe for the tiny model: three heads on the MLP layers; `training` settings may be changed."""

    def make(method: str = "hydralora", tuner: dict[str, Any] | None = None, **training: Any) -> Recipe:
        quick = {"max_steps": 8, "batch_size": 4, "eval_every": 4, "log_every": 2, "threads": 1}
        return parse_recipe(
            {
                "model": str(model_folder),
                "method": method,
                "data": {"train": str(data_file), "eval_fraction": 0.2},
                "tuner": {"r": 4, "num_heads": 3, "lora_alpha": 8} | (tuner or {}),
                "training": quick | training,
            }
        )

    return make


@dataclass(frozen=True)
class FinishedRun:
    """A run that `hydralora train --follow --json` made, and what that printed."""

    run: Run
    store: RunStore
    printed: dict[str, Any]
    stderr: str


@pytest.fixture(scope="session")
def finished(make_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(make_recipe().model_dump()), encoding="utf-8")
    workspace = folder / "workspace"
    command = [sys.executable, "-m", "hydralora.cli", "train", str(folder / "recipe.yaml"), "--follow", "--json"]
    command += ["--set", "training.max_steps=10", "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    store = RunStore(workspace)
    printed = json.loads(done.stdout)
    return FinishedRun(store.get(printed["run"]), store, printed, done.stderr)
