"""The form of a run: every setting has a widget that says what the recipe says, and takes it back."""

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import yaml

from app.actions import recipes
from app.actions.train import recipe_form
from app.page.forms import SECTIONS, keys_of, shown, values, widget
from app.services import Services
from hydralora.components.rows import read_split
from hydralora.data.mapping import Mapping
from hydralora.data.store import DEMO
from hydralora.errors import ConfigError
from hydralora.models.catalogue import find_model
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.reading import load_recipe, parse_recipe
from hydralora.recipe.settings import default_value

KEYS = [key for section in ("tuner", "training", "components") for key in keys_of(section)]
EXAMPLES: dict[str, Any] = {
    "tuner.target_modules": ["q_proj", "v_proj"],
    "tuner.router_bias": False,
    "tuner.top_k": 2,
    "training.gradient_checkpointing": True,
    "training.max_steps": None,
    "components.language": "en",
    "data.task_column": "kind",
    "method": "lora",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_default_goes_into_the_form_and_back(key: str) -> None:
    made = widget(key)
    assert made.value == shown(key, default_value(key))
    assert values([key], [made.value]) == {key: default_value(key)}
    assert made.info


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_value_goes_into_the_form_and_back(key: str) -> None:
    value = EXAMPLES[key]
    assert values([key], [shown(key, value)]) == {key: value}


def test_every_setting_that_is_one_value_has_a_widget() -> None:
    without = {
        name
        for section in ("tuner", "training")
        for name in SECTIONS[section].model_fields
        if f"{section}.{name}" not in keys_of(section)
    }
    assert without == set()
    assert isinstance(widget("training.gradient_checkpointing"), gr.Checkbox)
    assert isinstance(widget("tuner.router_init"), gr.Dropdown)


def held_by_form(**changes: object) -> dict[str, object]:
    """A form with the defaults of the settings that presets are about, and these changes."""
    return {key: default_value(key) for key in recipe_form.PRESET_KEYS} | changes


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_recipe(name: str) -> None:
    held: dict[str, dict[str, Any]] = {}
    for key, value in recipe_form.preset(name, held_by_form()).items():
        section, _, setting = key.partition(".")
        held.setdefault(section, {})[setting] = value
    recipe = parse_recipe({"model": "m", "data": {"train": "x"}} | held)
    for key, value in PRESETS[name].items():
        section, _, setting = key.partition(".")
        assert getattr(getattr(recipe, section), setting) == value


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_the_number_of_heads_that_the_components_gave(name: str) -> None:
    held = held_by_form(**{"tuner.num_heads": 5})
    assert recipe_form.preset(name, held)["tuner.num_heads"] == 5
    assert "tuner.num_heads" not in [change.key for change in recipe_form.preset_changes(name, held)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_all_that_it_changes_and_no_more(name: str) -> None:
    held = held_by_form(**{"training.max_length": 100, "training.max_steps": 7})
    wanted = recipe_form.preset(name, held)
    changes = recipe_form.preset_changes(name, held)
    assert {change.key: change.after for change in changes} == {
        key: value for key, value in wanted.items() if held[key] != value
    }
    assert all(change.before == held[change.key] for change in changes)
    assert "training.max_length" in [change.key for change in changes]  # never silently
    assert recipe_form.preset_changes(name, wanted) == []


def test_what_is_wrong_is_told_by_field(services: Services) -> None:
    held = {"tuner.r": 0, "training.learning_rate": 7, "training.batch_size": None, "training.warmup_ratio": 0.1}
    wrong = recipes.wrong_in_form(services, DEMO, "", held)
    assert set(wrong) == {"tuner.r", "training.learning_rate", "training.batch_size"}
    assert "greater than or equal to 1 (found 0)" in wrong["tuner.r"]
    assert recipes.wrong_in_form(services, DEMO, "", {"tuner.r": 1}) == {}


def test_the_recipe_that_is_shown_opens_as_the_same_form(services: Services, tmp_path: Path) -> None:
    held = {"tuner.r": 3, "training.epochs": 2.0, "training.max_steps": None, "tuner.target_modules": ["up_proj"]}
    text = recipe_form.recipe_text(services, DEMO, "", held)
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    opened = recipe_form.opened_recipe(services, str(file), list(held))
    assert (opened.dataset, opened.model, opened.lost) == (DEMO, "HuggingFaceTB/SmolLM2-135M-Instruct", [])
    assert dict(zip(held, opened.values, strict=True)) == held
    file.write_text("model: x\ndata: {train: y}\ntuner: {r: none}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"recipe.yaml: tuner.r"):
        recipe_form.opened_recipe(services, str(file), list(held))
    file.write_text("model: x\ndata: {train: elsewhere.jsonl}\n", encoding="utf-8")
    assert recipe_form.opened_recipe(services, str(file), ["method"]) == (None, "x", ["hydralora"], [])


def test_settings_that_the_form_has_no_place_for_are_named(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    names = [path.name for path in services.datasets.get(DEMO).files]
    held = services.datasets.get(DEMO).heldout
    recipe: dict[str, Any] = {
        "model": "x",
        "data": {"train": names, "eval": held and held.name, "mapping": "mine.yaml", "task_column": "kind"},
        "components": {"names": ["one", "two"], "language": "en"},
        "launch": {"slurm": {"timeout_min": 9}, "fsdp": "full_shard", "processes": 2},
        "training": {"max_steps": 7},
    }
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    opened = recipe_form.opened_recipe(services, str(file), ["training.max_steps", "launch.processes"])
    assert opened.dataset == DEMO
    lost = [
        "data.mapping",
        "data.task_column",
        "components.language",
        "components.names",
        "launch.slurm",
        "launch.fsdp",
    ]
    assert opened.lost == lost


def test_what_the_dataset_holds_is_not_lost(services: Services, data_file: Path) -> None:
    mapped = services.datasets.add([data_file], Mapping(question="instruction", answer="output"))
    way = recipes.component_settings(services, "", {"components.k": 2})
    services.datasets.rename(mapped.id, way.key, 2, 1, "fruit")
    recipe = recipes.recipe_from_form(services, mapped.id, "", {"components.k": 2})
    assert (recipe.components.names, Path(str(recipe.data.mapping)).name) == (["fruit", ""], "mapping.yaml")
    filled = recipes.form_from_recipe(services, recipe, ["components.k"])
    assert (filled.dataset, filled.lost) == (mapped.id, [])
    services.datasets.remove(mapped.id)


def test_the_recipe_that_is_shown_runs_wherever_it_is_saved(
    services: Services, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    own = services.store.workspace / "models" / "shown"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.symlink_to(model_folder)
    dataset = services.datasets.add([data_file], Mapping(question="instruction", answer="output"))
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_form.recipe_text(services, dataset.id, "shown", {"tuner.r": 3}), encoding="utf-8")
    recipe = load_recipe(file)
    assert find_model(recipe.model, download=False).folder.resolve() == model_folder.resolve()
    assert 40 < len(read_split(recipe).train) < 48
    assert recipe_form.opened_recipe(services, str(file), ["tuner.r"]) == (dataset.id, "shown", [3], [])
    services.datasets.remove(dataset.id)
    own.unlink()


def test_a_command_names_the_workspace_where_it_is_not_the_default_one(services: Services) -> None:
    assert recipes.workspace_option(services) == f" --workspace {services.store.workspace}"
    default = Services()
    assert recipes.workspace_option(default) == ""
    default.close()
