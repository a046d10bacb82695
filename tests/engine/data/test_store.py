"""Uploaded datasets, kept by the hash of their content."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hydralora import DatasetError
from hydralora.data.mapping import Mapping
from hydralora.data.store import DEMO, DatasetStore
from hydralora.files import building_folder


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "workspace")


def test_the_demo_is_always_there(store: DatasetStore) -> None:
    assert [dataset.id for dataset in store.all()] == ["demo"]
    assert store.get("demo").heldout is not None
    assert len(store.get("demo").read().examples) == 800


def test_the_same_content_is_kept_once(store: DatasetStore, data_file: Path, tmp_path: Path) -> None:
    first = store.add([data_file])
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data_file.read_bytes())
    assert store.add([copy]).id == first.id
    assert [dataset.name for dataset in store.all()] == [store.get("demo").name, data_file.name]
    assert first.files[0].read_bytes() == data_file.read_bytes()
    assert len(first.read().examples) == 48
    assert (first.heldout, first.mapping) == (None, None)


def test_another_mapping_is_another_dataset(store: DatasetStore, data_file: Path) -> None:
    mapping = Mapping(question="output", answer="instruction")
    first, second = store.add([data_file]), store.add([data_file], mapping)
    assert first.id != second.id
    assert second.mapping == mapping
    assert (first.read().examples[0].answer, second.read().examples[0].question) == ("plum", "plum")


def test_held_out_rows_come_along(store: DatasetStore, data_file: Path, tmp_path: Path) -> None:
    heldout = tmp_path / "held out.csv"
    heldout.write_text("instruction,output\na,b\n", encoding="utf-8")
    plain, both = store.add([data_file]), store.add([data_file], heldout=heldout)
    assert plain.id != both.id != store.add([data_file, heldout]).id
    assert plain.heldout is None
    assert both.heldout is not None
    assert both.heldout.read_bytes() == heldout.read_bytes()
    assert both.heldout.name == "held out.csv"


def test_files_keep_their_names_inside_the_workspace(store: DatasetStore, data_file: Path, tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / 'my "rows"; x.jsonl')
        files[-1].write_bytes(data_file.read_bytes() + b'{"instruction": "%s", "output": "x"}' % folder.encode())
    added = store.add(files)
    assert [path.name for path in added.files] == ["my _rows__ x.jsonl", "2 my _rows__ x.jsonl"]
    assert all(path.resolve().is_relative_to(store.folder.resolve()) for path in added.files)
    assert len(added.read().examples) == 50  # 48 are in both


def test_a_dataset_can_be_removed_but_not_the_demo(store: DatasetStore, data_file: Path) -> None:
    added = store.add([data_file])
    store.remove(added.id)
    assert [dataset.id for dataset in store.all()] == ["demo"]
    for name in (added.id, "demo", ".."):
        with pytest.raises(DatasetError):
            store.remove(name)


@pytest.mark.parametrize("name", ["", "..", "../../etc", "0123456789abcdef", "x\0y"])
def test_what_is_no_dataset_is_refused(name: str, store: DatasetStore) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        store.get(name)


def test_names_of_components_are_kept_with_the_dataset(store: DatasetStore, data_file: Path) -> None:
    dataset = store.add([data_file])
    assert store.names(dataset.id, "a way") is None
    store.rename(dataset.id, "a way", 2, 1, "  ripe\n fruit ")
    store.rename(dataset.id, "another", 1, 1, "tool")
    store.rename("demo", "a way", 1, 1, "demo")
    kept = DatasetStore(store.folder.parent)
    assert kept.names(dataset.id, "a way") == ["ripe fruit", ""]
    assert kept.names(dataset.id, "another") == ["tool"]
    assert [found.id for found in kept.all()] == ["demo", dataset.id]
    kept.copy_names(dataset.id, "demo")
    assert kept.names("demo", "another") == ["tool"]
    assert kept.names("demo", "a way") == ["demo"]  # its own
    kept.rename(dataset.id, "a way", 3, 3, "new")  # there are three now
    assert kept.names(dataset.id, "a way") == ["", "", "new"]
    kept.remove(dataset.id)
    assert store.add([data_file]).id == dataset.id
    assert store.names(dataset.id, "a way") is None
    assert store.names("demo", "a way") == ["demo"]
    for damaged in ("{", "[]", '{"names": null}'):
        (store.folder / "demo.names.json").write_text(damaged, encoding="utf-8")
        assert store.names("demo", "a way") is None
    with pytest.raises(DatasetError, match="no dataset"):
        store.rename("../demo", "a way", 1, 1, "x")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"name": "a", "files": []}', '{"name": 1, "files": ["a.jsonl"]}']
    + [json.dumps({"name": "a", "files": [name]}) for name in ("../a.jsonl", "/etc/passwd", "..", "a\0b", "gone.jsonl")]
    + [json.dumps({"name": "a", "files": ["a.jsonl"], "heldout": "../../x"}), '{"name": "x", "files": ' + "[" * 50_000],
)
def test_a_damaged_dataset_is_passed_over_and_says_so(content: str, data_file: Path, tmp_path: Path) -> None:
    store = DatasetStore(tmp_path)
    good = store.add([data_file])
    damaged = tmp_path / "datasets" / ("0" * 16)
    (damaged / "files").mkdir(parents=True)
    (damaged / "dataset.json").write_text(content, encoding="utf-8")
    assert [dataset.id for dataset in store.all()] == [DEMO, good.id]
    with pytest.raises(DatasetError, match=r"Dataset 0000.* Upload the file again|Delete its folder"):
        store.get("0" * 16)


def test_a_file_that_changes_while_it_is_stored_keeps_its_own_hash(
    data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data_file.read_bytes())
    copyfile = shutil.copyfile

    def copied_late(source: Path, target: Path) -> None:
        path.write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
        copyfile(source, target)

    monkeypatch.setattr("hydralora.data.store.shutil.copyfile", copied_late)
    store = DatasetStore(tmp_path)
    changed = store.add([path])
    assert len(changed.read().examples) == 1
    monkeypatch.undo()
    path.write_bytes(data_file.read_bytes())
    assert store.add([path]).id != changed.id


def test_what_a_killed_upload_left_is_removed(data_file: Path, tmp_path: Path) -> None:
    building = tmp_path / "datasets" / ".building"
    script = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom hydralora.files import building_folder\n"
        "with building_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'part').write_text('x')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(building.parent)], check=False)
    assert list(building.glob("*/part"))
    with building_folder(building.parent) as other:  # of a process that lives
        DatasetStore(tmp_path).add([data_file])
        assert [path for path in building.iterdir() if path.is_dir()] == [other]
    assert list(building.iterdir()) == []
