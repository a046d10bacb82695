"""Recipes that somebody has made to do harm, or that a program has garbled: one short sentence each."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.errors import ConfigError
from hydralora.recipe.reading import load_recipe, parse_recipe

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
