"""Files and folders that are there whole or not at all; JSON that any reader takes."""

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

T = TypeVar("T")
WEIGHTS = (".bin", ".safetensors")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them


def to_json(value: Any) -> str:
    """JSON that any reader takes: NaN and infinities, for which it has no numbers, become null."""
    return json.dumps(_finite(value), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` writes text."""
    write_text(path, to_json(value))


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader sees the old file or the new one, never half of one, even after a power cut."""
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
    """A folder to write into, which takes the place of `folder` at the end of the block.

    An error leaves `folder` as it was. Where files lie there already, those of the same name are replaced one by one,
    the weights last, and others are left alone.
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


def patiently(action: Callable[[], T]) -> T:
    """Windows refuses a file while another process replaces or reads it; that lasts milliseconds."""
    for _ in range(8 if sys.platform == "win32" else 0):
        try:
            return action()
        except PermissionError:
            time.sleep(0.05)
    return action()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cache_root() -> Path:
    """Where everything is kept that can be made again: HYDRALORA_CACHE, else the user's cache folder."""
    return Path(os.environ.get("HYDRALORA_CACHE") or platformdirs.user_cache_path("hydralora"))


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or a damaged one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
