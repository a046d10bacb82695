"""Atomic writes of files and folders; strict JSON."""

import json
import math
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from hydralora.bounded import UnreadableError, read_json

T = TypeVar("T")
LARGEST_OBJECT = 64 * 2**20  # bytes; a large model's index has an entry for each of its weights
WEIGHTS = (".bin", ".safetensors")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them
MODEL_WEIGHTS, MODEL_INDEX = "model.safetensors", "model.safetensors.index.json"  # as transformers names them


def to_json(value: Any) -> str:
    """Strict JSON: NaN and infinities, which JSON can't represent, become null."""
    return json.dumps(_finite(value), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` writes text."""
    write_text(path, to_json(value))


def write_text(path: Path, text: str) -> None:
    """Write text atomically: a reader sees the old file or the new one, even after a power cut."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")  # each writer has its own
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: os.replace(temporary, path))
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into; at the end of the block it replaces `folder`.

    An error leaves `folder` unchanged. If `folder` already has files, those of the same name are replaced one by one,
    the weights last; the others stay.
    """
    building = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        building.mkdir(parents=True)
        yield building
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Trainer makes it when it starts
        if not folder.exists():
            os.replace(building, folder)
            return
        for file in sorted(building.iterdir(), key=lambda file: file.suffix in WEIGHTS):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def weight_files(folder: Path) -> list[Path]:
    """The weights of a saved adapter, or those of a saved whole model, which may be in several files; none if they are
    missing or incomplete."""
    if (folder / ADAPTER_WEIGHTS).exists():
        return [folder / ADAPTER_WEIGHTS]
    shards = read_json_object(folder / MODEL_INDEX).get("weight_map", {}).values()
    files = [folder / name for name in sorted(set(shards)) or [MODEL_WEIGHTS]]
    return files if all(file.exists() for file in files) else []


def patiently(action: Callable[[], T]) -> T:
    """Retry an action that Windows refuses while another process has the file open, which lasts milliseconds."""
    for _ in range(8 if sys.platform == "win32" else 0):
        try:
            return action()
        except (PermissionError, UnreadableError) as error:
            if not isinstance(error.__cause__ or error, PermissionError):
                raise
            time.sleep(0.05)
    return action()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cache_root() -> Path:
    """The folder of everything that can be recreated: HYDRALORA_CACHE, else the user's cache folder."""
    return Path(os.environ.get("HYDRALORA_CACHE") or platformdirs.user_cache_path("hydralora"))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or damaged."""
    try:
        value = read_json(path, LARGEST_OBJECT)
    except UnreadableError:
        return {}
    return value if isinstance(value, dict) else {}
