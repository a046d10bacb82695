"""A run's checkpoints: folders named by step, each complete or absent."""

import math
import os
import re
import shutil
from pathlib import Path

PREFIX = "checkpoint-"  # as transformers' Trainer names them
NAME = re.compile(rf"{PREFIX}([0-9]+)")
LOSS = "heldout_loss"  # our file in it


def saved_checkpoints(folder: Path) -> dict[int, Path]:
    """The complete checkpoints in a folder by step, the oldest first; empty if there is no such folder."""
    names = {path: NAME.fullmatch(path.name) for path in folder.glob(f"{PREFIX}*") if path.is_dir()}
    checkpoints = {int(name[1]): path for path, name in names.items() if name}
    return dict(sorted(checkpoints.items()))


def building_place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written before it is moved to its place."""
    return folder / f".building-{step}"


def put_in_place(folder: Path, step: int, keep: int, loss: float | None = None) -> None:
    """Move a finished checkpoint to its place; keep the newest `keep`, and the best one.

    Args:
        loss: on held-out rows, of the newest measurement before it.
    """
    building, target = building_place(folder, step), folder / f"{PREFIX}{step}"
    shutil.rmtree(target, ignore_errors=True)
    if loss is not None and math.isfinite(loss):
        (building / target.name / LOSS).write_text(repr(loss), encoding="utf-8")
    for path in (building / target.name).rglob("*"):  # so that they are complete even after a power cut
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    os.replace(building / target.name, target)
    remove_unfinished(folder)
    spared = best_checkpoint(folder)
    for old in list(saved_checkpoints(folder).values())[:-keep]:
        if spared is None or old != spared[1]:
            shutil.rmtree(old)


def remove_unfinished(folder: Path) -> None:
    """Remove checkpoints whose writing was interrupted."""
    for unfinished in folder.glob(".building-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def best_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """The checkpoint with the lowest held-out loss, with its step; None where none was measured."""
    measured = [
        (loss, step, path) for step, path in saved_checkpoints(folder).items() if (loss := _loss(path)) is not None
    ]
    return min(measured)[1:] if measured else None


def _loss(checkpoint: Path) -> float | None:
    try:
        return float((checkpoint / LOSS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
