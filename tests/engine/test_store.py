"""Uploaded datasets, kept by the hash of their content."""

from pathlib import Path

import pytest

from hydralora import DatasetError
from hydralora.data.store import DatasetStore


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "workspace")


def test_the_demo_is_always_there(store: DatasetStore) -> None:
    assert [dataset.id for dataset in store.all()] == ["demo"]
    assert store.get("demo").heldout is not None
    assert len(store.get("demo").read().examples) == 800


def test_the_same_content_is_kept_once(store: DatasetStore, data_file: Path, tmp_path: Path) -> None:
    first = store.add(data_file, "mine.jsonl")
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data_file.read_bytes())
    assert store.add(copy, "other.jsonl").id == first.id
    assert [dataset.name for dataset in store.all()] == [store.get("demo").name, "mine.jsonl"]
    assert first.train.read_bytes() == data_file.read_bytes()
    assert len(first.read().examples) == 48
    assert first.heldout is None


def test_a_name_is_no_path(store: DatasetStore, data_file: Path) -> None:
    added = store.add(data_file, "../../outside/mine.jsonl")
    assert added.name == "mine.jsonl"
    assert added.train.resolve().is_relative_to(store.folder.resolve())


def test_a_wrong_file_is_refused_under_its_own_name(store: DatasetStore, tmp_path: Path) -> None:
    path = tmp_path / "upload-7f3a.jsonl"
    path.write_text('{"instruction": "x", "output": ""}', encoding="utf-8")
    with pytest.raises(DatasetError, match=r"^mine\.jsonl, row 1: column 'output'"):
        store.add(path, "mine.jsonl")
    assert len(store.all()) == 1


@pytest.mark.parametrize("name", ["", "..", "../../etc", "0123456789abcdef", "x\0y"])
def test_what_is_no_dataset_is_refused(name: str, store: DatasetStore) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        store.get(name)
