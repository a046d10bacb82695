"""Uploaded datasets, kept in the workspace under the hash of their content and mapping."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.mapping import Mapping, load_mapping, save_mapping
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.sources import open_source
from hydralora.errors import DatasetError
from hydralora.files import write_json

DATASET_ID = re.compile(r"[0-9a-f]{16}")
DEMO = "demo"
MAPPING = "mapping.yaml"
UNSAFE = re.compile(r"[^\w. -]")


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
        digest = hashlib.sha256(mapping.model_dump_json().encode() if mapping else b"")
        measured = [open_source(heldout)] if heldout else []
        for source in sources + measured:
            with source.path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        digest.update(bytes([len(measured)]))
        dataset_id = digest.hexdigest()[:16]
        target = self.folder / dataset_id
        if not target.exists():
            building = self.folder / f".{dataset_id}"
            shutil.rmtree(building, ignore_errors=True)
            names = [_copied(source.path, building / "files", i) for i, source in enumerate(sources)]
            if mapping:
                save_mapping(mapping, building / MAPPING)
            about = {
                "version": 1,
                "name": ", ".join(source.name for source in sources),
                "files": names,
                "heldout": _copied(measured[0].path, building / "heldout", 0) if measured else None,
            }
            (building / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
            os.replace(building, target)
        return self.get(dataset_id)

    def get(self, dataset_id: str) -> StoredDataset:
        """The dataset with this id.

        Raises:
            DatasetError: there is none.
        """
        if dataset_id == DEMO:
            return StoredDataset(DEMO, "Demo: four skills", (demo_file("train"),), None, demo_file("heldout"))
        folder = self.folder / dataset_id
        if not DATASET_ID.fullmatch(dataset_id) or not (folder / "files").is_dir():
            raise DatasetError(f"There is no dataset {dataset_id!r} in this workspace. Upload the file again.")
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        mapping = folder / MAPPING
        return StoredDataset(
            id=dataset_id,
            name=about["name"],
            files=tuple(folder / "files" / name for name in about["files"]),
            mapping_file=mapping if mapping.exists() else None,
            heldout=folder / "heldout" / about["heldout"] if about["heldout"] else None,
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
        """The demo first, then the uploaded ones by name."""
        ids = [path.parent.name for path in self.folder.glob("*/files")]
        stored = [self.get(name) for name in ids if DATASET_ID.fullmatch(name)]
        return [self.get(DEMO), *sorted(stored, key=lambda dataset: dataset.name.lower())]


def _copied(path: Path, folder: Path, index: int) -> str:
    """Copy a file into `folder`; returns the name that it has there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = UNSAFE.sub("_", path.name)
    if (folder / name).exists():
        name = f"{index + 1} {name}"
    shutil.copyfile(path, folder / name)
    return name
