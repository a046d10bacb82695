"""The run that ships with the program: its files, its place in a workspace, and what is refused there."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hydralora import RunError, RunStore
from hydralora.analysis import read_weights
from hydralora.data.demo import demo_file, shipped_folder
from hydralora.inference.traces import Trace, load_trace
from hydralora.recipe.settings import Recipe
from hydralora.runs.comparison import summary
from hydralora.runs.jobs import JobManager
from hydralora.runs.results import RunResults
from hydralora.runs.run import SHIPPED_ID, Label, Run
from hydralora.runs.shipped import MANIFEST, read_manifest, restore_shipped_run, write_manifest
from hydralora.runs.snapshots import saved_snapshots
from tests.known import known

GALLERY = shipped_folder("gallery")
REVERSED = "lamp, cloud, boat, apple"
UNIFORM = 0.25  # a gate of four equal heads
MOST_BYTES = 3_500_000


@pytest.fixture(scope="module")
def results() -> RunResults:
    return known(Run(GALLERY).state().results)


@pytest.fixture(scope="module")
def answers() -> dict[str, Trace]:
    return {path.stem: load_trace(path) for path in sorted(Run(GALLERY).answers.glob("*.json"))}


@pytest.fixture
def shipped(store: RunStore) -> Run:
    return restore_shipped_run(store)


def contents(folder: Path) -> dict[str, bytes]:
    """By path; without hidden files, such as locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_every_file_has_its_hash_and_all_are_small() -> None:
    files = read_manifest(GALLERY).files
    assert files.keys() == contents(GALLERY).keys() - {MANIFEST}
    assert sum(map(len, contents(GALLERY).values())) < MOST_BYTES


def test_each_component_has_its_own_head_and_answers_are_right(results: RunResults) -> None:
    use = known(results.component_by_head)
    assert [len(gates) for gates in use] == [4] * 4
    assert min(use[i][i] for i in range(4)) >= 2 * UNIFORM
    assert known(results.tuned).exact_match >= 0.8
    assert known(results.base).exact_match <= 0.3
    assert all(score.exact_match >= 0.5 for score in known(results.tuned).per_task.values())


def test_the_adapter_is_the_one_that_was_measured(results: RunResults) -> None:
    run = Run(GALLERY)
    assert read_manifest(GALLERY).files["adapter/adapter_model.safetensors"] == results.adapter_hash
    assert run.state().adapter_hash == results.adapter_hash


def test_a_dozen_snapshots_lead_from_equal_heads_to_the_adapter() -> None:
    run = Run(GALLERY)
    saved = saved_snapshots(run.snapshots)
    assert 10 <= len(saved) <= 14
    final = read_weights(run.adapter)
    start, end = (read_weights(run.snapshots, saved[step]) for step in (min(saved), max(saved)))
    for module, layer in final.items():
        assert not start[module].heads.any()
        assert torch.allclose(end[module].heads, layer.heads, rtol=1e-3, atol=1e-5)


def test_a_wrong_head_breaks_the_answer(answers: dict[str, Trace]) -> None:
    assert answers["1-router"].text == REVERSED
    pinned = [trace.text for name, trace in answers.items() if name.startswith("1-head-")]
    assert len(pinned) == 4
    assert sum(text != REVERSED for text in pinned) >= 2
    assert answers["1-base"].text != REVERSED


def test_saved_answers_are_of_this_adapter(answers: dict[str, Trace], results: RunResults) -> None:
    assert {f"{number}-{who}" for number in range(1, 5) for who in ("router", "base")} <= answers.keys()
    for name, trace in answers.items():
        tuned = not name.endswith("base")
        assert (trace.run, trace.adapter_hash) == ((SHIPPED_ID, results.adapter_hash) if tuned else (None, None))
        assert all(len(token.gates) == len(trace.modules) for token in (*trace.prompt, *trace.tokens))
        assert bool(trace.modules) == tuned
    assert json.loads(answers["2-router"].text) == {"name": "Umar Evans", "age": 42, "city": "Vienna", "job": "chef"}
    assert (answers["3-router"].text, answers["4-router"].text) == ("35", "shipping")


def test_nothing_tells_of_the_machine_that_made_it() -> None:
    for name, content in contents(GALLERY).items():
        if not name.endswith(".safetensors"):
            assert not any(place in content for place in (b"/tmp/", b"/root/", b"/home/", b"/work/")), name


def test_it_is_a_run_like_others_and_listed_last(
    shipped: Run, store: RunStore, make_recipe: Callable[..., Recipe]
) -> None:
    own = store.create(make_recipe())
    assert [run.id for run in store.all()] == [own.id, SHIPPED_ID]
    assert shipped.label().name == "Demo, 4 heads"
    assert "hydralora gallery build" in shipped.label().note
    row = summary(shipped, JobManager(store).refresh(shipped))
    assert (row.state, row.dataset, row.heads) == ("finished", "train.jsonl", 4)
    recipe = shipped.recipe()
    assert (recipe.data.train, recipe.data.eval) == (str(demo_file("train")), str(demo_file("heldout")))


def test_a_run_can_continue_from_it(shipped: Run, store: RunStore) -> None:
    recipe = shipped.recipe().model_copy(update={"start_from": SHIPPED_ID})
    assert store.resolved(recipe).start_from == str(shipped.adapter)


def test_restoring_again_changes_nothing(shipped: Run, store: RunStore) -> None:
    before = {path: path.stat().st_mtime_ns for path in shipped.folder.rglob("*")}
    assert restore_shipped_run(store) == shipped
    assert {path: path.stat().st_mtime_ns for path in shipped.folder.rglob("*")} == before


def delete_all(run: Run) -> None:
    shutil.rmtree(run.folder)


def delete_one(run: Run) -> None:
    (run.adapter / "adapter_config.json").unlink()


def cut(run: Run) -> None:
    os.truncate(run.adapter / "adapter_model.safetensors", 1000)


def rename(run: Run) -> None:
    (run.folder / "label.json").write_text('{"name": "mine"}', encoding="utf-8")


def move_the_demo(run: Run) -> None:
    text = (run.folder / "recipe.yaml").read_text(encoding="utf-8")
    (run.folder / "recipe.yaml").write_text(text.replace("train.jsonl", "gone.jsonl"), encoding="utf-8")


def add(run: Run) -> None:
    (run.snapshots / "step-7.safetensors").write_bytes(b"")


@pytest.mark.parametrize("damage", [delete_all, delete_one, cut, rename, move_the_demo, add])
def test_what_is_deleted_or_damaged_is_restored(shipped: Run, store: RunStore, damage: Callable[[Run], None]) -> None:
    whole = contents(shipped.folder)
    damage(shipped)
    restore_shipped_run(store)
    assert contents(shipped.folder) == whole
    assert not list((store.folder / ".building").iterdir())


@pytest.mark.parametrize("replacements", [0, 1])
def test_a_kill_half_way_leaves_no_damaged_run(
    shipped: Run, store: RunStore, monkeypatch: pytest.MonkeyPatch, replacements: int
) -> None:
    """Killed before the damaged run is moved away, or after that and before the whole one is in its place."""
    whole = contents(shipped.folder)
    cut(shipped)
    done: list[Path] = []
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if len(done) == replacements:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("hydralora.runs.shipped.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            restore_shipped_run(store)
    assert shipped.folder.exists() == (replacements == 0)  # not touched yet, or gone
    restore_shipped_run(store)
    assert contents(shipped.folder) == whole


def test_it_is_read_only(shipped: Run, store: RunStore) -> None:
    jobs, before = JobManager(store), contents(shipped.folder)
    for refused in (
        lambda: jobs.delete(shipped),
        lambda: store.delete(shipped),
        lambda: jobs.resume(shipped),
        lambda: shipped.write_label(Label("mine")),
    ):
        with pytest.raises(
            RunError, match=r"^This run ships with the program, so it can't be (deleted|resumed|rename)"
        ):
            refused()
    assert contents(shipped.folder) == before
    assert store.deleted() == []


def damaged_copy(folder: Path, name: str) -> Path:
    shutil.copytree(GALLERY, folder)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    return folder


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "recipe.yaml", "events.jsonl"])
def test_a_damaged_installation_is_refused_by_file(store: RunStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=rf"{Path(name).name} is not the file that ships .* Install the program again"):
        restore_shipped_run(store, damaged_copy(tmp_path / "gallery", name))
    assert not (store.folder / SHIPPED_ID).exists()


def test_a_missing_or_unreadable_list_of_hashes_is_refused(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"sha256.json: can't be read"):
        restore_shipped_run(store, tmp_path)
    (tmp_path / MANIFEST).write_text('{"version": 1}', encoding="utf-8")
    with pytest.raises(RunError, match=r"sha256.json: files is missing"):
        restore_shipped_run(store, tmp_path)


def test_a_hash_covers_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1", encoding="utf-8")
    first = write_manifest(tmp_path).hash
    assert write_manifest(tmp_path).hash == first
    os.replace(tmp_path / "a", tmp_path / "b")
    second = write_manifest(tmp_path).hash
    (tmp_path / "b").write_text("2", encoding="utf-8")
    assert len({first, second, write_manifest(tmp_path).hash}) == 3
