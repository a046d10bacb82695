"""Recipes that somebody has made to do harm, or that a program has garbled: one short sentence each."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from annotated_types import Le, Lt
from pydantic import BaseModel
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.errors import ConfigError
from hydralora.recipe.reading import load_recipe, parse_recipe, with_settings
from hydralora.recipe.settings import Recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.store import RunStore

NINES = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 9))
BOMB = f"model: default\nx0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n{NINES}data:\n  train: *x8\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100,000 values"),
        ("a: " * 1000, "can't be read as YAML"),
        ("[" * 100_000, "nested more than"),
        ('{model: default, data: {train: "a\\0b"}}', r"data\.train has the control character '\\x00'"),
        ('{model: "a\\x1b[2Jb", data: {train: rows}}', r"model has the control character '\\x1b'"),
        ('{model: default, data: {train: "a\\ud800b"}}', r"data\.train has half a character"),
        (f"{{model: default, data: {{train: {'x' * 10_000}}}}}", r"data\.train has 10,000 characters"),
        (f"{{model: {'m' * 300}, data: {{train: rows}}}}", "model has a part of more than 255 bytes"),
        (f"{{model: default, data: {{train: rows, eval: {'é' * 200}}}}}", r"data\.eval has a part of more than 255"),
        (f"{{model: default, data: {{train: rows}}, start_from: {'s' * 2000}}}", "start_from has 2,000 characters"),
        ("{model: default, data: {train: rows}, training: {seed: 2001-99-99}}", "month must be in"),
        (f"{{model: default, data: {{train: rows}}, {', '.join(f'k{i}: 1' for i in range(5000))}}}", "and 4992 more"),
        (f"{{model: default, data: {{train: rows}}, method: {'m' * 10**6}}}", "method"),
        (f"{{model: default, data: {{train: rows}}, {'k' * 900}: 1}}", "is not a setting"),
    ],
    ids=lambda value: value[:24],
)
def test_a_recipe_is_refused_in_one_short_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(ConfigError, match=message) as raised:
        load_recipe(path)
    assert time.monotonic() - start < 5
    assert len(str(raised.value)) < 3000
    assert "\n" not in str(raised.value)
    done = CliRunner().invoke(app, ["train", str(path)])
    assert done.exit_code == 1
    assert "Traceback" not in done.output


@pytest.mark.parametrize("name", ["rows of mine.jsonl", "日本語　の行.jsonl", "données\u00a0(1).csv", "a/b/c.jsonl"])
def test_unusual_names_are_names(name: str) -> None:
    values: dict[str, Any] = {"model": "default", "data": {"train": name}}
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(values))).data.train == name


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("training.seed", 2**32),
        ("components.seed", 10**20),
        ("training.epochs", float("inf")),
        ("training.epochs", float("nan")),
        ("training.max_steps", 10**20),
        ("training.threads", 100_000),
        ("training.gradient_accumulation", 10**9),
        ("training.max_length", 10**12),
        ("training.eval_every", 10**20),
        ("training.save_every", 10**20),
        ("training.keep_checkpoints", 10**20),
        ("training.log_every", 10**20),
        ("training.benchmark_rows", 10**20),
        ("training.learning_rate", float("inf")),
        ("components.only", 10**20),
        ("launch.processes", 10**6),
        ("tuner.r", 10**9),
        ("tuner.lora_alpha", 1e300),
        ("tuner.lora_alpha", float("nan")),
        ("tuner.balance_weight", float("inf")),
        ("tuner.gate_information", 1e300),
        ("tuner.virtual_tokens", 10**9),
    ],
)
def test_no_number_is_without_a_bound(setting: str, value: float) -> None:
    values = with_settings({"model": "default", "data": {"train": "rows"}}, {setting: value})
    with pytest.raises(ConfigError, match=setting.replace(".", r"\.")) as raised:
        parse_recipe(values)
    assert "found" in str(raised.value)


def test_every_number_has_an_upper_bound() -> None:
    unbounded = [
        f"{section}.{name}"
        for section, model in ((name, field.annotation) for name, field in Recipe.model_fields.items())
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, field in model.model_fields.items()
        if {int, float} & {*get_args(field.annotation), field.annotation}
        and not any(isinstance(bound, Le | Lt) for bound in field.metadata)
    ]
    assert unbounded == []


def test_more_processes_than_cores_are_not_started(store: RunStore, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    many = recipe.model_copy(update={"launch": recipe.launch.model_copy(update={"processes": 64})})
    with pytest.raises(ConfigError, match=rf"launch\.processes is 64, and this machine has {os.cpu_count()} cores"):
        JobManager(store).start(many)
    assert store.all() == []
