"""The demo dataset: written by its generator, learnable, and honest about what is held out."""

import json
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hydralora.data.dataset import read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.split import split_by_file

GENERATOR = Path(__file__).parents[3] / "assets" / "make_demo.py"
TASKS = {"reverse", "extract", "arithmetic", "classify"}


@pytest.fixture(scope="module")
def train() -> list[dict[str, Any]]:
    return rows("train")


@pytest.fixture(scope="module")
def heldout() -> list[dict[str, Any]]:
    return rows("heldout")


def rows(name: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in demo_file(name).read_text(encoding="utf-8").splitlines()]


def normalised(row: dict[str, Any]) -> str:
    return " ".join(f"{row['instruction']} {row['input']} {row['output']}".lower().split())


def test_the_generator_writes_these_files(train: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> None:
    make_rows = runpy.run_path(str(GENERATOR))["make_rows"]
    assert make_rows() == (train, heldout)
    assert make_rows(seed=1) != (train, heldout)


def test_four_skills_of_equal_size(train: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> None:
    assert 800 <= len(train) + len(heldout) <= 1200
    for part in (train, heldout):
        counts = Counter(row["task"] for row in part)
        assert set(counts) == TASKS
        assert max(counts.values()) == min(counts.values())


def test_both_files_are_usable() -> None:
    files = [read_dataset(demo_file(name)) for name in ("train", "heldout")]
    assert split_by_file(*files).shared == ()
    assert all(file.tasks and set(file.tasks) == TASKS for file in files)


def test_no_held_out_row_is_a_training_row(train: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> None:
    everything = [normalised(row) for row in train + heldout]
    assert len(set(everything)) == len(everything)
    contents = [{f"{row['task']} {row['input']}" for row in part} for part in (train, heldout)]
    assert not contents[0] & contents[1]  # not even the content under another phrasing


@pytest.mark.parametrize("task", sorted(TASKS))
def test_two_phrasings_of_each_skill_are_held_out(
    task: str, train: list[dict[str, Any]], heldout: list[dict[str, Any]]
) -> None:
    taught, asked = ({row["instruction"] for row in part if row["task"] == task} for part in (train, heldout))
    assert len(taught | asked) >= 8
    assert len(asked - taught) >= 2
    assert len(asked & taught) >= 2


def right(row: dict[str, Any]) -> bool:
    question, answer = row["input"], row["output"]
    if row["task"] == "reverse":
        return answer.split(", ") == question.split(", ")[::-1]
    if row["task"] == "arithmetic":
        first, second = question.split(" plus ")
        return int(answer) == int(first) + int(second)
    if row["task"] == "extract":
        person = json.loads(answer)
        return set(person) == {"name", "age", "city", "job"} and all(
            str(value) in question for value in person.values()
        )
    return answer in {"billing", "shipping", "technical", "account"}


def test_every_answer_is_right(train: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> None:
    assert [row for row in train + heldout if not right(row)] == []
