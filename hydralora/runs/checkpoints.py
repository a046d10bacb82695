"""A run's checkpoints: folders named by step, each complete or absent."""

import math
import os
import re
import shutil
import zipfile
from pathlib import Path

from hydralora.files import UnreadableError, file_hash, read_json, read_json_object, write_json

PREFIX = "checkpoint-"  # as transformers' Trainer names them
NAME = re.compile(rf"{PREFIX}([0-9]+)")
LOSS = "heldout_loss"  # our files in it: the loss, and the sha256 of every other one
HASHES = "sha256.json"
DAMAGED = ".damaged-"
STATE = "trainer_state.json"  # as transformers' Trainer names it


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
    write_json(building / target.name / HASHES, _hashes(building / target.name))
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
    """Remove checkpoints whose writing was interrupted, and damaged ones."""
    for pattern in (".building-*", f"{DAMAGED}*"):
        for useless in folder.glob(pattern):
            shutil.rmtree(useless, ignore_errors=True)


def set_aside_damaged(folder: Path) -> list[str]:
    """Rename the checkpoints that can't be continued from, down to the newest whole one.

    Returns:
        A sentence for each.
    """
    sentences = []
    for step, path in reversed(saved_checkpoints(folder).items()):
        if not (reason := damage(path)):
            break
        aside = folder / f"{DAMAGED}{step}"
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
        sentences.append(f"the checkpoint at step {step} is damaged ({reason})")
    return sentences


def damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint's files; "" for a whole one."""
    expected = read_json_object(checkpoint / HASHES)
    try:
        if not expected:  # written before hashes were, or they are lost
            return _unreadable(checkpoint)
        actual = _hashes(checkpoint)
    except OSError as error:
        return f"{Path(str(error.filename)).name} can't be read"
    if missing := sorted(expected.keys() - actual.keys()):
        return f"{missing[0]} is missing"
    return next((f"{name} has changed" for name, value in expected.items() if actual[name] != value), "")


def _hashes(checkpoint: Path) -> dict[str, str]:
    """sha256 of each file by its path in the checkpoint."""
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != HASHES)
    return {path.relative_to(checkpoint).as_posix(): file_hash(path) for path in files}


def _unreadable(checkpoint: Path) -> str:
    """The file that isn't what its name says; "" if there is none."""
    from safetensors import SafetensorError, safe_open

    for path in [checkpoint / STATE, *sorted(checkpoint.rglob("*.*"))]:
        try:
            if path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(path) as archive:
                    archive.testzip()
        except (UnreadableError, SafetensorError, zipfile.BadZipFile) as error:
            return f"{path.name} can't be read" if path.exists() else f"{path.name} is missing: {type(error).__name__}"
    return ""


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
