"""The datasets on which it is known whether routing should pay."""

import json
import runpy
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from hydralora.data.dataset import read_dataset
from hydralora.data.demo import shipped_data, shipped_folder

Rows = list[dict[str, str]]
ASSETS = Path(__file__).parents[3] / "assets"


def rows(name: str) -> Rows:
    text = (shipped_folder("sets") / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_generator_writes_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ASSETS), *sys.path])  # it shares the demo's words
    make_sets = runpy.run_path(str(ASSETS / "make_sets.py"))["make_sets"]
    assert make_sets() == {name: rows(name) for name in ("conflict", "single")}
    assert make_sets(1)["conflict"] != rows("conflict")


def test_every_task_has_the_same_inputs_and_answers_that_contradict_each_other() -> None:
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows("conflict"):
        answers[row["input"]][row["task"]] = row["output"]
    assert {len(by_task) for by_task in answers.values()} == {6}
    assert all(len(set(by_task.values())) == 6 for by_task in answers.values())


def test_the_other_set_is_one_task() -> None:
    assert {row["task"] for row in rows("single")} == {"reverse"}
    assert len(rows("single")) == len(rows("conflict"))


@pytest.mark.parametrize("name", ["demo", "conflict", "single"])
def test_they_are_read_without_a_mapping(name: str) -> None:
    found = shipped_data(name)
    assert found
    dataset = read_dataset([str(found[0])])
    assert not dataset.by_kind
    assert dataset.tasks


def test_no_other_name_is_one_of_them() -> None:
    assert shipped_data("rows.jsonl") is None
