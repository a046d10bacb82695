"""Snapshots of an adapter's weights during training, in half precision, from which its trajectory is drawn."""

import os
import secrets
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from hydralora.files import ADAPTER_CONFIG

PREFIX, SUFFIX = "step-", ".safetensors"


def snapshot_steps(max_steps: int, count: int) -> set[int]:
    """Where snapshots are taken: before the first step, and at `count` steps evenly up to the last; none for 0."""
    return {round(i * max_steps / count) for i in range(count + 1)} if count else set()


def save_snapshot(model: Any, folder: Path, step: int) -> None:
    """Save the active adapter of a PEFT model atomically, replacing an older snapshot of the same step."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / ADAPTER_CONFIG
    if not config.exists():
        model.peft_config[model.active_adapter].save_pretrained(str(folder))
    weights = {key: value.detach().to("cpu", torch.float16) for key, value in get_peft_model_state_dict(model).items()}
    building = folder / f".{secrets.token_hex(4)}"
    try:
        save_file(weights, building)
        os.replace(building, folder / f"{PREFIX}{step}{SUFFIX}")
    finally:
        building.unlink(missing_ok=True)


def saved_snapshots(folder: Path) -> dict[int, str]:
    """File names by step, the first step first; empty if there is no such folder."""
    files = {
        int(path.name.removeprefix(PREFIX).removesuffix(SUFFIX)): path.name
        for path in folder.glob(f"{PREFIX}*{SUFFIX}")
    }
    return dict(sorted(files.items()))
