"""What all tests share: no network, none of the user's files, and a few tiny models."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import hydralora.training.trainer
from hydralora.inference.loss import summed_answer_loss
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run
from hydralora.runs.store import RunStore
from tests import USER_ENVIRONMENT
from tests.tiny_model import byte_tokenizer, write_tiny_model

LONGEST = "test_real_model.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest begins first, so that two processes share the others meanwhile."""
    items.sort(key=lambda item: LONGEST not in item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs and models go to a temporary folder; tiny models run faster on one thread."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRALORA_HOME", str(home / "workspace"))
        patch.setenv("HYDRALORA_CACHE", str(home / "cache"))
        patch.setenv("HF_HUB_CACHE", str(home / "hub"))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
        yield


@pytest.fixture(scope="session")
def user_environment() -> dict[str, str]:
    """The environment as the tests were started with, for those that use the real base model."""
    return dict(USER_ENVIRONMENT)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model with a chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def plain_tokenizer() -> Any:
    """A tokenizer without a chat template."""
    return byte_tokenizer(chat=False)


@pytest.fixture
def break_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give it n: the loss of the n-th batch trained on from here is not a number, or `factor` times as large."""

    def at(call: int, factor: float = math.nan) -> None:
        calls: list[int] = []

        def breaks(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
            calls.append(1)
            loss, count = summed_answer_loss(model, batch)
            return loss * (factor if len(calls) == call else 1), count

        monkeypatch.setattr(hydralora.training.trainer, "summed_answer_loss", breaks)

    return at


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids (3, 10)."""
    return torch.randint(5, 261, (3, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two unlike skills with short answers, 24 rows of each, with a task column."""
    rows = []
    for i in range(24):
        letter = chr(ord("a") + i)
        rows.append({"instruction": f"name fruit number {letter}{letter}", "output": "plum", "task": "fruit"})
        rows.append({"instruction": f"which tool fixes {letter}{letter} engine", "output": "saw", "task": "tool"})
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


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
