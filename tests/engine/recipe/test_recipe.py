"""Recipes: one file for the browser, the terminal and the worker."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hydralora import ConfigError
from hydralora.experiments.demo import demo_recipe
from hydralora.recipe.reading import load_recipe, parse_recipe
from hydralora.recipe.settings import Recipe

LEAST: dict[str, Any] = {"model": "owner/name", "data": {"train": "rows.jsonl"}}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(LEAST | changes), encoding="utf-8")
    return path


def test_all_but_two_keys_have_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert (recipe.method, recipe.tuner.router_init, recipe.training.max_steps) == ("hydralora", "components", 100)
    assert recipe.data.train == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "lora", "tuner": {"num_heads": 3, "target_modules": ["q_proj"]}},
        {
            "tuner": {
                "router_bias": True,
                "exclude_modules": ["a"],
                "layers_to_transform": [0],
                "modules_to_save": ["b"],
            }
        },
        {"quantization": "nf4", "training": {"gradient_checkpointing": True}},
        {"training": {"epochs": 1.5, "seed": 7}, "components": {"k": 4, "features": "tfidf"}},
        {"data": {"train": "/a/ä.csv", "eval": "/a/b.csv", "task_column": "sort of"}},
    ],
)
def test_yaml_round_trip(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(LEAST | {"data": {"train": "/a/rows.jsonl"}} | changes)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_every_setting_is_described() -> None:
    def fields(model: Any) -> list[Any]:
        own = list(model.model_fields.values())
        return own + [
            inner for field in own if hasattr(field.annotation, "model_fields") for inner in fields(field.annotation)
        ]

    settings = [field for field in fields(Recipe) if not hasattr(field.annotation, "model_fields")]
    assert len(settings) > 20
    assert all(field.description and field.description.endswith(".") for field in settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "x"}, "modle is not a setting"),
        ({"training": {"learnig_rate": 1}}, "training.learnig_rate is not a setting"),
        ({"model": None}, "model"),
        ({"data": {}}, "data.train is missing"),
        ({"data": None}, "data"),
        ({"method": "dora"}, "method.*'hydralora'.*found 'dora'"),
        ({"quantization": "int8"}, "quantization.*'none' or 'nf4'.*found 'int8'"),
        ({"training": {"gradient_checkpointing": 2}}, "training.gradient_checkpointing.*found 2"),
        ({"tuner": {"r": 0}}, "tuner.r.*1.*found 0"),
        ({"tuner": {"r": "many"}}, "tuner.r.*found 'many'"),
        ({"tuner": {"num_heads": 65}}, "tuner.num_heads.*64.*found 65"),
        ({"tuner": {"lora_dropout": 1}}, "tuner.lora_dropout"),
        ({"tuner": {"target_modules": []}}, "tuner.target_modules"),
        ({"tuner": {"layers_to_transform": [0, -1]}}, "tuner.layers_to_transform.1.*found -1"),
        ({"tuner": {"exclude_modules": "q_proj"}}, "tuner.exclude_modules.*found 'q_proj'"),
        ({"tuner": {"router_bias": "maybe"}}, "tuner.router_bias.*found 'maybe'"),
        ({"training": {"batch_size": 0, "max_steps": -1}}, "training.max_steps.*training.batch_size"),
        ({"training": {"max_steps": 5, "epochs": 1}}, "max_steps or epochs, not both"),
        ({"training": {"max_steps": None}}, "set max_steps or epochs"),
        ({"components": {"k": 0}}, "components.k"),
        ({"version": 2}, "version is 2, this program reads 1"),
        ({3: 4}, "3"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[Any, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(LEAST | changes), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.compile(rf"recipe\.yaml: .*{message}")):
        load_recipe(path)


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]", "a: [", "\x00", "a: b: c"])
def test_what_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: "):
        load_recipe(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_file_that_cant_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.yaml: .*read"):
        load_recipe(path)


def test_set_changes_a_setting(tmp_path: Path) -> None:
    path = write(tmp_path, training={"seed": 1})
    recipe = load_recipe(
        path, ["training.max_steps=7", "tuner.target_modules=[q_proj, v_proj]", "method=lora", "data.eval=held.csv"]
    )
    assert (recipe.training.max_steps, recipe.training.seed, recipe.method) == (7, 1, "lora")
    assert recipe.tuner.target_modules == ["q_proj", "v_proj"]
    assert recipe.data.eval == str(tmp_path / "held.csv")
    assert load_recipe(path, ["training.epochs=2"]).training.max_steps is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_steps", "section.name=value"),
        ("=3", "section.name=value"),
        ("training.max_steps=[", "not YAML"),
        ("training.max_step=3", "training.max_step is not a setting"),
        ("training=3", "training"),
        ("a.b.c=3", "a is not a setting"),
    ],
)
def test_a_wrong_set_is_named(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path), [override])


def test_a_models_folder_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    assert load_recipe(write(tmp_path, model="./tiny")).model == str(tmp_path / "tiny")
    assert load_recipe(write(tmp_path, model="owner/name")).model == "owner/name"


def test_a_setting_is_checked_when_it_changes() -> None:
    recipe = demo_recipe()
    recipe.training.max_steps = 3
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        recipe.tuner.r = 0


def test_the_demos_recipe_needs_no_other_file() -> None:
    recipe = demo_recipe()
    assert recipe.data.eval is not None
    assert Path(str(recipe.data.train)).is_file()
    assert Path(recipe.data.eval).is_file()


def test_what_is_given_away_says_nothing_of_a_cluster() -> None:
    values = {"model": "m", "data": {"train": "rows.jsonl"}}
    recipe = parse_recipe(values | {"launch": {"executor": "slurm", "slurm": {"setup": ["export TOKEN=secret"]}}})
    assert "secret" not in recipe.portable().to_yaml()
    assert "secret" in recipe.to_yaml()
