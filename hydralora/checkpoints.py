"""A run's checkpoints: folders named by step, each complete or absent."""

import os
import shutil
from pathlib import Path

PREFIX = "checkpoint-"  # as transformers' Trainer names them


def saved_checkpoints(folder: Path) -> dict[int, Path]:
    """The complete checkpoints in a folder by step, the oldest first; none where there is no such folder."""
    found = {int(path.name.removeprefix(PREFIX)): path for path in folder.glob(f"{PREFIX}*") if path.is_dir()}
    return dict(sorted(found.items()))


def building_place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written before it takes its place."""
    return folder / f".building-{step}"


def put_in_place(folder: Path, step: int, keep: int) -> None:
    """Move a finished checkpoint to its place; of all only the newest `keep` stay."""
    building, target = building_place(folder, step), folder / f"{PREFIX}{step}"
    shutil.rmtree(target, ignore_errors=True)
    os.replace(building / target.name, target)
    for left in folder.glob(".building-*"):  # of processes that were killed, too
        shutil.rmtree(left, ignore_errors=True)
    for old in list(saved_checkpoints(folder).values())[:-keep]:
        shutil.rmtree(old)
