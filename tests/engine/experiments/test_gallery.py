"""`hydralora gallery build` on a tiny model: what it prints, and that what it writes can be restored."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hydralora import RunError, RunStore
from hydralora.cli.options import app
from hydralora.experiments.gallery import PROMPTS, GalleryReport, build_gallery
from hydralora.inference.traces import load_trace
from hydralora.models.adapters import hash_adapter
from hydralora.recipe.settings import Recipe
from hydralora.runs import processes
from hydralora.runs.events import TrainEvent
from hydralora.runs.run import SHIPPED_ID, Run
from hydralora.runs.shipped import read_manifest, restore_shipped_run
from tests.known import known

Make = Callable[..., Recipe]


def recipe_file(folder: Path, recipe: Recipe) -> Path:
    path = folder / "recipe.yaml"
    path.write_text("# A comment.\n" + yaml.safe_dump(recipe.model_dump()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def report(folder: Path, make_recipe: Make) -> GalleryReport:
    recipe = recipe_file(folder, make_recipe(snapshots=2, max_steps=4))
    command = ["gallery", "build", "--recipe", str(recipe), "--json"]
    command += ["--out", str(folder / "built"), "--workspace", str(folder / "workspace")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    for child in processes.children:
        child.wait(30)
    return GalleryReport.model_validate_json(done.stdout)


def test_it_prints_the_run_its_hash_its_size_and_its_measures(report: GalleryReport, folder: Path) -> None:
    built = folder / "built"
    assert (report.version, report.run, report.folder) == (1, SHIPPED_ID, str(built))
    assert report.hash == read_manifest(built).hash
    assert report.bytes == sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
    results = known(Run(built).state().results)
    assert (report.loss, report.exact_match) == (known(results.tuned).loss, known(results.tuned).exact_match)
    assert report.component_by_head == results.component_by_head
    assert report.snapshots == [0, 2, 4]
    assert (folder / "workspace" / "runs" / report.trained / "adapter").is_dir()


def test_the_files_are_those_of_the_run_without_its_machine(report: GalleryReport, folder: Path) -> None:
    built, trained = Run(folder / "built"), RunStore(folder / "workspace").get(report.trained)
    assert hash_adapter(built.adapter) == hash_adapter(trained.adapter) == built.state().adapter_hash
    assert (built.folder / "recipe.yaml").read_bytes() == (folder / "recipe.yaml").read_bytes()
    assert not any(event.usage for event in built.events() if isinstance(event, TrainEvent))
    assert (built.state().id, built.state().pid, built.state().host) == (SHIPPED_ID, None, None)
    for path in (built.adapter, built.snapshots):
        assert "/" not in json.loads((path / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]


def test_every_prompt_is_answered_by_router_and_base_and_one_by_each_head(report: GalleryReport, folder: Path) -> None:
    names = [f"{i}-{who}" for i in range(1, len(PROMPTS) + 1) for who in ("router", "base")]
    assert report.answers.keys() == {*names, "1-head-1", "1-head-2", "1-head-3"}
    for name, text in report.answers.items():
        trace = load_trace(folder / "built" / "answers" / f"{name}.json")
        assert trace.text == text
        assert trace.messages[-1].content == PROMPTS[int(name[0]) - 1]
        pinned = re.search(r"head-(\d)", name)
        assert trace.steering == ({"pin": int(pinned[1]) - 1} if pinned else None)


def test_it_is_restored_from_there(report: GalleryReport, folder: Path, tmp_path: Path) -> None:
    run = restore_shipped_run(RunStore(tmp_path), folder / "built")
    assert run.label().name == "Demo, 3 heads"
    assert run.state().state == "finished"
    assert Path(str(run.recipe().data.train)).exists()


def test_it_replaces_only_what_it_built(store: RunStore, tmp_path: Path, make_recipe: Make) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(RunError, match="no shipped run was built there"):
        build_gallery(store, other, lambda event: None, recipe_file(tmp_path, make_recipe()))
    with pytest.raises(RunError, match="method lora has no heads"):
        build_gallery(store, tmp_path / "new", lambda event: None, recipe_file(tmp_path, make_recipe("lora")))
    assert store.all() == []
