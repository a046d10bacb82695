"""Runs leave a workspace and come into another one; what somebody else made is looked at before it is taken."""

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from hydralora import HydraError, RunError, RunStore
from hydralora.errors import MissingModelError
from hydralora.inference.model_cache import load_run
from hydralora.runs import sampled_events
from hydralora.runs.comparison import summary
from hydralora.runs.events import TrainEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.sampled_events import INDEX
from hydralora.transfer import export_run, import_run, importing
from hydralora.transfer.about import MEMBERS
from hydralora.transfer.exporting import Exported
from tests.conftest import FinishedRun
from tests.known import known

Change = Callable[[dict[str, bytes]], None]


@pytest.fixture(scope="module")
def exported(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run.zip"
    told = export_run(finished.run, "adapter", out)
    assert told == Exported(path=str(out), bytes=out.stat().st_size, kl=None)
    return out


def changed(exported: Path, folder: Path, change: Change) -> Path:
    """A copy of the zip with other members."""
    with zipfile.ZipFile(exported) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    out = folder / "changed.zip"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out


def edit(name: str, **values: object) -> Change:
    def change(members: dict[str, bytes]) -> None:
        members[name] = json.dumps(json.loads(members[name]) | values).encode()

    return change


def test_a_run_that_was_exported_and_imported_answers_alike(
    finished: FinishedRun, exported: Path, store: RunStore, model_folder: Path, ids: torch.Tensor
) -> None:
    run = import_run(store, exported, str(model_folder))
    assert [one.id for one in store.all()] == [run.id]
    state = JobManager(store).refresh(run)
    assert state.state == "finished"
    assert state.message == "imported, after 10 steps elsewhere"
    before = known(finished.run.state().results)
    found, wanted = known(state.results).values(), before.values()
    assert {key: found[key] for key in ("base", "tuned", "components", "component_by_head")} == {
        key: wanted[key] for key in ("base", "tuned", "components", "component_by_head")
    }
    losses = [[e.loss for e in one.events() if isinstance(e, TrainEvent)] for one in (run, finished.run)]
    assert losses[0] == losses[1] != []
    with torch.inference_mode():
        logits = [load_run(one).model(input_ids=ids).logits for one in (run, finished.run)]
    assert torch.equal(*logits)
    row = summary(run, state)
    assert row.exact_match == known(before.tuned).exact_match


def test_nothing_of_this_machine_is_in_the_file(finished: FinishedRun, exported: Path) -> None:
    recipe = finished.run.recipe()
    with zipfile.ZipFile(exported) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if "safetensors" not in name}
        names = archive.namelist()
    assert sorted(names) == sorted(
        ["adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.yaml", "run.json", "events.jsonl"]
    )
    train = recipe.data.train if isinstance(recipe.data.train, str) else recipe.data.train[0]
    for name, text in texts.items():
        assert str(Path(train).parent) not in text, name
        assert str(Path(recipe.model).parent) not in text, name
    card = texts["README.md"]
    assert known(finished.run.state().results).data[0].sha256 in card
    assert "| fruit |" in card
    assert "max_steps: 10" in card


def test_no_index_of_the_events_is_in_the_file(finished: FinishedRun, tmp_path: Path) -> None:
    run = Run(tmp_path / finished.run.id)
    shutil.copytree(finished.run.folder, run.folder)
    (run.folder / INDEX).write_text("{}", encoding="utf-8")
    export_run(run, "adapter", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(MEMBERS)


def test_a_long_run_has_its_index_once_it_is_imported(
    exported: Path, store: RunStore, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_events, "INDEX_EVERY", 2)
    run = import_run(store, exported, str(model_folder))
    assert (run.folder / INDEX).exists()
    assert [event.step for event in run.sampled_events().look()] == [event.step for event in run.events()]


def test_the_base_model_of_another_machine_must_be_named(exported: Path, store: RunStore) -> None:
    with pytest.raises(
        MissingModelError, match=r"the folder 'tiny' on another machine\. Give the same model on this machine"
    ):
        import_run(store, exported)
    assert store.all() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update({"../evil.txt": b"x"}), r"it holds '../evil.txt'"),
        (lambda m: m.update({"/etc/evil": b"x"}), r"it holds '/etc/evil'"),
        (lambda m: m.update({"adapter_model.bin": b"x"}), "it holds 'adapter_model.bin'"),
        (lambda m: m.update({INDEX: b"{}"}), f"it holds '{INDEX}'"),
        (lambda m: m.pop("recipe.yaml"), "no recipe.yaml"),
        (lambda m: m.update({"adapter_model.safetensors": b"not weights"}), "sha256"),
        (lambda m: m.update({"recipe.yaml": b"model: [1"}), "recipe.yaml"),
        (lambda m: m.update({"recipe.yaml": b"!!python/object/apply:os.system ['touch /tmp/evil']"}), "recipe.yaml"),
        (lambda m: m.update({"events.jsonl": b'{"step": "<b>"}\n'}), "events.jsonl, line 1"),
        (lambda m: m.update({"run.json": b"[]"}), "run.json"),
        (edit("run.json", results={"tuned": {"loss": "<script>"}}), "run.json"),
        (edit("run.json", adapter_hash="0" * 64), "sha256"),
        (edit("adapter_config.json", auto_mapping={"parent_library": "os"}), "auto_mapping"),
        (edit("adapter_config.json", peft_type="VERA"), "VERA"),
    ],
)
def test_a_file_with_anything_else_in_it_is_refused_and_leaves_nothing(
    change: Change, message: str, exported: Path, store: RunStore, model_folder: Path, tmp_path: Path
) -> None:
    file = changed(exported, tmp_path, change)
    with pytest.raises(HydraError, match=message):
        import_run(store, file, str(model_folder))
    assert store.all() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_link_is_refused(exported: Path, store: RunStore, model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "link.zip"
    with zipfile.ZipFile(exported) as source, zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            info = zipfile.ZipInfo(name)
            if name == "README.md":
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, b"/etc/passwd" if name == "README.md" else source.read(name))
    with pytest.raises(RunError, match=r"README.md is a link"):
        import_run(store, file, str(model_folder))


def test_what_grows_too_large_is_refused(
    exported: Path, store: RunStore, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LARGEST_TEXT", 2**20)
    file = changed(exported, tmp_path, lambda members: members.update({"README.md": b" " * (2**20 + 1)}))
    assert file.stat().st_size < 2**20
    with pytest.raises(RunError, match="larger than 1 MB"):
        import_run(store, file, str(model_folder))
    assert store.all() == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"plain text"])
def test_what_is_no_zip_is_refused(content: bytes, store: RunStore, tmp_path: Path) -> None:
    (tmp_path / "run.zip").write_bytes(content)
    with pytest.raises(RunError, match="no whole zip"):
        import_run(store, tmp_path / "run.zip")


def test_a_file_cut_short_is_refused(exported: Path, store: RunStore, tmp_path: Path) -> None:
    (tmp_path / "run.zip").write_bytes(exported.read_bytes()[:-2000])
    with pytest.raises(RunError, match="no whole zip"):
        import_run(store, tmp_path / "run.zip")


def test_a_plain_lora_is_read_without_this_package_and_says_how_far_it_is(
    finished: FinishedRun, model_folder: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    told = export_run(finished.run, "lora", tmp_path / "lora")
    assert 0 <= known(told.kl) < 1
    assert told.bytes == sum(file.stat().st_size for file in (tmp_path / "lora").iterdir())
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    baked = PeftModel.from_pretrained(base, tmp_path / "lora")
    merged_told = export_run(finished.run, "merged", tmp_path / "merged")
    assert merged_told.kl == told.kl
    assert sorted(path.name for path in (tmp_path / "merged").iterdir() if path.is_dir()) == []
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.inference_mode():
        torch.testing.assert_close(merged(input_ids=ids).logits, baked(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_what_can_not_be_written_says_so_and_leaves_nothing(finished: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(HydraError, match="router_bias"):  # the published format has none
        export_run(finished.run, "official", tmp_path / "published.zip")
    with pytest.raises(HydraError, match=r"Choose one of adapter, lora, merged, official"):
        export_run(finished.run, "gguf", tmp_path / "out.zip")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(HydraError, match="exists already"):
        export_run(finished.run, "adapter", tmp_path / "full")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_run_without_an_adapter_is_not_exported(store: RunStore, finished: FinishedRun, tmp_path: Path) -> None:
    run = store.create(finished.run.recipe())
    with pytest.raises(RunError, match="has no adapter yet"):
        export_run(run, "adapter", tmp_path / "out.zip")


def test_a_folder_takes_the_same_files_as_a_zip(finished: FinishedRun, exported: Path, tmp_path: Path) -> None:
    export_run(finished.run, "adapter", tmp_path / "adapter")
    with zipfile.ZipFile(exported) as archive:
        assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == sorted(archive.namelist())
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as weights:
        assert weights.keys()
    shutil.make_archive(str(tmp_path / "again"), "zip", tmp_path / "adapter")
    assert zipfile.is_zipfile(tmp_path / "again.zip")


def test_a_run_that_has_not_ended_well_is_exported_with_the_weights_it_has(
    finished: FinishedRun, store: RunStore, model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / finished.run.id
    shutil.copytree(finished.run.folder, folder)
    run = Run(folder)
    run.update(state="failed", adapter_hash=None)
    out = tmp_path / "run.zip"
    export_run(run, "adapter", out)
    assert import_run(store, out, str(model_folder)).has_adapter
