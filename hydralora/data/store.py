"""Uploaded datasets, kept in the workspace under the hash of their content and mapping."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.mapping import Mapping, load_mapping, save_mapping
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.sources import open_source
from hydralora.errors import DatasetError, first_line, found
from hydralora.files import UnreadableError, building_folder, file_hash, read_json, write_json

DATASET_ID = re.compile(r"[0-9a-f]{16}")
DEMO = "demo"
MAPPING, ABOUT = "mapping.yaml", "dataset.json"
UNSAFE = re.compile(r"[^\w. -]")


def _plain(name: str) -> str:
    """A file's name that leads nowhere else."""
    if not name or UNSAFE.search(name) or name in (".", ".."):
        raise ValueError(f"{found(name)} is no file's name")
    return name


FileName = Annotated[str, AfterValidator(_plain)]


class _About(BaseModel):
    """A dataset's file about itself."""

    name: Annotated[str, Field(max_length=10_000)]
    files: Annotated[list[FileName], Field(min_length=1)]
    heldout: FileName | None = None


def _about(dataset_id: str, folder: Path) -> _About:
    try:
        about = _About.model_validate(read_json(folder / ABOUT))
        missing = [name for name in about.files if not (folder / "files" / name).is_file()]
    except (UnreadableError, ValidationError, OSError, ValueError) as error:
        raise DatasetError(
            f"Dataset {dataset_id}: {ABOUT} can't be read ({first_line(error)}). Delete its folder in the workspace, "
            "and upload the file again."
        ) from error
    if missing:
        raise DatasetError(f"Dataset {dataset_id}: {found(missing[0])} is missing. Upload the file again.")
    return about


@dataclass(frozen=True)
class StoredDataset:
    """A dataset by id: its files of training rows, their mapping, and its file of held-out rows, if any."""

    id: str
    name: str
    files: tuple[Path, ...]
    mapping_file: Path | None
    heldout: Path | None

    @property
    def mapping(self) -> Mapping | None:
        """The mapping that the user gave; None if it is detected from the columns."""
        return load_mapping(self.mapping_file) if self.mapping_file else None

    def read(self, on_progress: OnProgress = ignore_progress) -> Dataset:
        return read_dataset(self.files, self.mapping, on_progress=on_progress)


class DatasetStore:
    """The datasets of a workspace, and the demo, which is always there."""

    def __init__(self, workspace: Path) -> None:
        self.folder = workspace / "datasets"

    def add(self, files: Sequence[Path], mapping: Mapping | None = None, heldout: Path | None = None) -> StoredDataset:
        """Store copies of files under their names; equal content with an equal mapping is stored once.

        The rows are checked by `read`.

        Args:
            heldout: a file of held-out rows, with the same mapping.

        Raises:
            DatasetError: there is no such file, or its type can't be read.
        """
        sources = [open_source(path) for path in files]
        measured = [open_source(heldout)] if heldout else []
        digest = hashlib.sha256(mapping.model_dump_json().encode() if mapping else b"")
        with building_folder(self.folder) as building:
            names = [_copied(source.path, building / "files", i) for i, source in enumerate(sources)]
            measured_names = [_copied(source.path, building / "heldout", 0) for source in measured]
            copies = [
                *(building / "files" / name for name in names),
                *(building / "heldout" / n for n in measured_names),
            ]
            for copy in copies:  # whatever becomes of the files meanwhile
                digest.update(bytes.fromhex(file_hash(copy)))
            digest.update(bytes([len(measured)]))
            dataset_id = digest.hexdigest()[:16]
            if mapping:
                save_mapping(mapping, building / MAPPING)
            about = {
                "version": 1,
                "name": ", ".join(source.name for source in sources),
                "files": names,
                "heldout": measured_names[0] if measured else None,
            }
            (building / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            if not (self.folder / dataset_id).exists():
                with suppress(OSError):  # another process has stored the same
                    os.replace(building, self.folder / dataset_id)
        return self.get(dataset_id)

    def get(self, dataset_id: str) -> StoredDataset:
        """The dataset with this id.

        Raises:
            DatasetError: there is none.
        """
        if dataset_id == DEMO:
            return StoredDataset(DEMO, "Demo: four skills", (demo_file("train"),), None, demo_file("heldout"))
        folder = self.folder / str(dataset_id)
        if not DATASET_ID.fullmatch(str(dataset_id)) or not (folder / "files").is_dir():
            raise DatasetError(f"There is no dataset {found(dataset_id)} in this workspace. Upload the file again.")
        about = _about(dataset_id, folder)
        mapping = folder / MAPPING
        return StoredDataset(
            id=dataset_id,
            name=about.name,
            files=tuple(folder / "files" / name for name in about.files),
            mapping_file=mapping if mapping.exists() else None,
            heldout=folder / "heldout" / about.heldout if about.heldout else None,
        )

    def remove(self, dataset_id: str) -> None:
        """Delete a dataset's copies; runs that were trained on it keep their results.

        Raises:
            DatasetError: there is none, or it is the demo.
        """
        if dataset_id == DEMO:
            raise DatasetError("The demo dataset can't be removed; it is part of the program.")
        names = self._names_file(dataset_id)
        shutil.rmtree(self.folder / dataset_id)
        names.unlink(missing_ok=True)

    def names(self, dataset_id: str, key: str) -> list[str] | None:
        """The names that the user gave to the components of `key`; None if there are none."""
        return self._names(dataset_id).get(key)

    def rename(self, dataset_id: str, key: str, count: int, number: int, name: str) -> None:
        """Store the name of one of `count` components, counted from 1; an empty name restores its terms."""
        file = self._names_file(dataset_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".names.lock"):
            names_by_key = self._names(dataset_id)
            names = names_by_key.get(key, [])
            names_by_key[key] = names if len(names) == count else [""] * count
            names_by_key[key][number - 1] = " ".join(name.split())
            write_json(file, {"version": 1, "names": names_by_key})

    def copy_names(self, source: str, target: str) -> None:
        """Copy the components' names to another dataset with the same rows."""
        write_json(self._names_file(target), {"version": 1, "names": self._names(source) | self._names(target)})

    def _names(self, dataset_id: str) -> dict[str, list[str]]:
        try:
            return dict(json.loads(self._names_file(dataset_id).read_text(encoding="utf-8"))["names"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # never written, or damaged: names are optional

    def _names_file(self, dataset_id: str) -> Path:
        return self.folder / f"{self.get(dataset_id).id}.names.json"

    def all(self) -> list[StoredDataset]:
        """The demo first, then the uploaded ones by name; a damaged one is passed over."""
        stored = []
        for path in self.folder.glob("*/files"):
            with suppress(DatasetError):
                stored.append(self.get(path.parent.name))
        return [self.get(DEMO), *sorted(stored, key=lambda dataset: dataset.name.lower())]


def _copied(path: Path, folder: Path, index: int) -> str:
    """Copy a file into `folder`; returns the name that it has there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = UNSAFE.sub("_", path.name)
    if (folder / name).exists():
        name = f"{index + 1} {name}"
    shutil.copyfile(path, folder / name)
    return name
