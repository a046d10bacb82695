"""Datasets of the Hub: fetched once, read as files; without a network, a plain error."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from hydralora import DatasetError
from hydralora.data import hub
from hydralora.data.dataset import read_dataset
from hydralora.recipe.reading import load_recipe

ROWS = [{"question": f"{i} + {i}?", "answer": str(2 * i), "topic": "sums"} for i in range(5)]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A Hub that has owner/name with the config main and the split test."""
    made: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        made.append((name, config, split))
        if made[-1] != ("owner/name", "main", "test"):
            raise ValueError("Unknown split.\nSecond line")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setenv("HYDRALORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return made


def test_a_dataset_is_fetched_once_and_read_as_a_file(calls: list[tuple[Any, ...]]) -> None:
    for _ in range(2):
        data = read_dataset("hub:owner/name:main@test", task_column="topic")
    assert calls == [("owner/name", "main", "test")]
    assert data.shape == "question-answer"
    assert [example.answer for example in data.examples] == ["0", "2", "4", "6", "8"]
    assert data.tasks == ["sums"] * 5


@pytest.mark.parametrize("name", ["hub:owner/name", "hub:owner/name:other@test", "hub:absent"])
def test_what_the_hub_does_not_have_is_named(name: str, calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"^{name}: .*Unknown split\.\).*:CONFIG"):
        read_dataset(name)
    assert len(calls) == 1
    assert not list((tmp_path / "cache").glob("hub-datasets/*"))


@pytest.mark.parametrize("name", ["hub:", "hub:a/b/c", "hub:../x", "hub:a/..", "hub:a b", "hub:/etc/passwd", "hub:a@"])
def test_what_is_no_name_is_refused(name: str, calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(DatasetError, match="not a dataset name of the Hub"):
        read_dataset(name)
    assert calls == []


def test_without_a_network_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    with pytest.raises(DatasetError, match="Hub can't be reached"):
        read_dataset("hub:owner/name")


def test_a_recipe_may_name_one(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata:\n  train: [hub:owner/name@test, rows.jsonl]\n", encoding="utf-8")
    assert load_recipe(path).data.train == ["hub:owner/name@test", str(tmp_path / "rows.jsonl")]
