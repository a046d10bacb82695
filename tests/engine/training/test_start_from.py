"""Runs that train on from an adapter that was trained before."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hydralora import ConfigError, ModelError, RunError
from hydralora.recipe.reading import load_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event
from hydralora.runs.jobs import JobManager
from hydralora.training.monitor import Monitor
from hydralora.training.preparation import prepare
from hydralora.training.run import train
from tests.known import known, loss_of
from tests.tiny_model import adapt, tiny_llama

Make = Callable[..., Recipe]


@pytest.mark.parametrize("method", ["hydralora", "lora", "lora-split", "uniform"])
def test_a_run_begins_where_the_other_ended(make_recipe: Make, tmp_path: Path, method: str) -> None:
    recipe = make_recipe(method, max_steps=6, learning_rate=1e-2)
    ended = train(recipe, tmp_path / "first")
    recipe.start_from = str(tmp_path / "first")
    events: list[Event] = []
    again = train(recipe, tmp_path / "second", Monitor(events.append))
    begun = load_file(tmp_path / "first" / "adapter_model.safetensors")
    prepared = prepare(recipe, lambda stage: None)
    state = {name.replace(".default", ""): value for name, value in prepared.model.state_dict().items()}
    assert all(torch.equal(state[name], value) for name, value in begun.items())
    assert loss_of(again.tuned) < loss_of(ended.tuned)
    moved = load_file(tmp_path / "second" / "adapter_model.safetensors")
    assert moved.keys() == begun.keys()
    assert any(not torch.equal(moved[name], begun[name]) for name in begun)


def test_the_shape_is_the_adapters(make_recipe: Make, tmp_path: Path) -> None:
    train(make_recipe(max_steps=2), tmp_path / "first")
    other = make_recipe("lora", tuner={"r": 2, "num_heads": 5})
    other.start_from = str(tmp_path / "first")
    with pytest.raises(ConfigError, match=r"method=hydralora, tuner\.r=4, tuner\.num_heads=3"):
        prepare(other, lambda stage: None)


def test_ranks_and_scales_that_a_recipe_cant_hold_are_refused(make_recipe: Make, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rank_pattern": {"up_proj": 2}, "use_rslora": True, "lora_alpha": 16}
    adapt(tiny_llama(), **settings).save_pretrained(tmp_path)
    recipe = make_recipe(tuner={"lora_alpha": 16})
    recipe.start_from = str(tmp_path)
    with pytest.raises(ConfigError, match=r"has another shape than this recipe\. Set tuner\.use_rslora=True\."):
        prepare(recipe, lambda stage: None)
    recipe.tuner.use_rslora = True
    with pytest.raises(ConfigError, match="made with rank_pattern, which a recipe can't hold"):
        prepare(recipe, lambda stage: None)


def test_an_adapter_that_is_none_is_refused(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe.start_from = str(tmp_path)
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        prepare(recipe, lambda stage: None)
    train(make_recipe(max_steps=2), tmp_path / "first")
    (tmp_path / "first" / "adapter_config.json").write_text("{", encoding="utf-8")
    recipe.start_from = str(tmp_path / "first")
    with pytest.raises(ModelError, match=r"adapter_config\.json can't be read"):
        prepare(recipe, lambda stage: None)


@pytest.mark.slow
def test_a_run_starts_from_another_by_its_id(jobs: JobManager, make_recipe: Make) -> None:
    first = jobs.start(make_recipe(max_steps=4))
    assert jobs.follow(first).state == "finished"
    recipe = make_recipe(max_steps=4)
    recipe.start_from = first.id
    second = jobs.start(recipe)
    assert jobs.follow(second).state == "finished"
    losses = [loss_of(known(run.state().results).tuned) for run in (first, second)]
    assert losses[1] < losses[0]
    assert second.recipe().start_from == first.id
    assert str(jobs.store.workspace) not in second.recipe().portable().to_yaml()


def test_a_run_that_cant_be_gone_on_from_is_refused_at_once(
    jobs: JobManager, make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe()
    recipe.start_from = "20260101-000000-abcd"
    with pytest.raises(RunError, match="no run '20260101"):
        jobs.start(recipe)
    waiting = jobs.store.create(make_recipe())
    recipe.start_from = waiting.id
    with pytest.raises(RunError, match="no adapter yet"):
        jobs.start(recipe)
    train(make_recipe(max_steps=2), waiting.adapter)
    copy = tmp_path / "other"
    shutil.copytree(recipe.model, copy)
    recipe.model = str(copy)
    with pytest.raises(RunError, match="another base model"):
        jobs.start(recipe)
    assert jobs.store.all() == [waiting]


def test_a_folder_is_taken_from_the_recipes_place(make_recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    recipe = make_recipe()
    recipe.start_from = "adapter"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").start_from == str(tmp_path / "adapter")
    recipe.start_from = "20260101-000000-abcd"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").start_from == "20260101-000000-abcd"
