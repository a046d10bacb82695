"""Uploaded datasets, kept in the workspace under the hash of their content."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hydralora.assets import demo_file
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.sources import suffix_of
from hydralora.errors import DatasetError

DATASET_ID = re.compile(r"[0-9a-f]{16}")
DEMO = "demo"


@dataclass(frozen=True)
class StoredDataset:
    """A dataset by id: training rows, and held-out rows in a second file if it has one."""

    id: str
    name: str
    train: Path
    heldout: Path | None

    def read(self) -> Dataset:
        return read_dataset(self.train)


class DatasetStore:
    """The datasets of a workspace, and the demo, which is always there."""

    def __init__(self, workspace: Path) -> None:
        self.folder = workspace / "datasets"

    def add(self, path: Path, name: str) -> StoredDataset:
        """Check a file and keep a copy; the same content is kept once.

        Raises:
            DatasetError: the file can't be used, naming row, column and fix.
        """
        shown = Path(name).name or path.name
        try:
            read_dataset(path)
        except DatasetError as error:
            raise DatasetError(str(error).replace(path.name, shown)) from error
        with path.open("rb") as file:
            dataset_id = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        target = self.folder / dataset_id
        if not target.exists():
            building = self.folder / f".{dataset_id}"
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
            shutil.copyfile(path, building / f"rows{suffix_of(path)}")
            (building / "dataset.json").write_text(json.dumps({"version": 1, "name": shown}), encoding="utf-8")
            os.replace(building, target)
        return self.get(dataset_id)

    def get(self, dataset_id: str) -> StoredDataset:
        """The dataset with this id.

        Raises:
            DatasetError: there is none.
        """
        if dataset_id == DEMO:
            return StoredDataset(DEMO, "Demo: four skills", demo_file("train"), demo_file("heldout"))
        folder = self.folder / dataset_id
        if not DATASET_ID.fullmatch(dataset_id) or not (folder / "dataset.json").exists():
            raise DatasetError(f"There is no dataset {dataset_id!r} in this workspace. Upload the file again.")
        name = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["name"]
        return StoredDataset(dataset_id, name, next(folder.glob("rows.*")), None)

    def all(self) -> list[StoredDataset]:
        """The demo first, then the uploaded ones by name."""
        ids = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        stored = [self.get(name) for name in ids if DATASET_ID.fullmatch(name)]
        return [self.get(DEMO), *sorted(stored, key=lambda dataset: dataset.name.lower())]
