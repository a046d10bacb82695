"""Rows held out of training: none is in both parts, and measuring never flatters itself."""

from collections import Counter
from pathlib import Path

import pytest

from hydralora import DatasetError
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.split import split, split_by_file
from tests.engine.data.malformed import lines


def rows_of(tmp_path: Path, *tasks: str, name: str = "rows.jsonl") -> Dataset:
    path = tmp_path / name
    rows = [{"instruction": f"{name} {i}", "output": "x", "task": task} for i, task in enumerate(tasks)]
    path.write_bytes(lines(*rows, "{"))
    return read_dataset(path)


def test_every_row_is_in_one_part_and_the_seed_draws_them(tmp_path: Path) -> None:
    data = rows_of(tmp_path, *"a" * 50)
    parts = [split(data, 0.2, seed) for seed in (0, 0, 1)]
    for part in parts:
        assert sorted([row.row for row in part.train] + [row.row for row in part.heldout]) == list(range(1, 51))
        assert len(part.heldout) == 10
        assert part.by_kind == {"broken-row": 1}
        assert [row.row for row in part.train] == sorted(row.row for row in part.train)
    assert parts[0] == parts[1] != parts[2]


def test_groups_are_held_out_in_equal_shares(tmp_path: Path) -> None:
    tasks = [*"a" * 100, *"b" * 40, *"c" * 20, "d"]
    data = rows_of(tmp_path, *tasks)
    held = Counter(row.task for row in split(data, 0.1, 3, groups=data.tasks).heldout)
    assert held == {"a": 10, "b": 4, "c": 2}


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1 row.s. can't be split"):
        split(rows_of(tmp_path, "a"), 0.1, 0)
    with pytest.raises(DatasetError, match="1 held-out rows can't be drawn from each of 2 groups"):
        split(rows_of(tmp_path, *"aabb"), 0.1, 0, groups=[*"aabb"])


def test_rows_of_both_files_are_left_out_of_the_held_out_ones(tmp_path: Path) -> None:
    train = rows_of(tmp_path, *"ab", name="train.jsonl")
    path = tmp_path / "more.jsonl"
    same = {"instruction": " TRAIN.jsonl \n 1", "output": "X"}
    path.write_bytes(lines({"instruction": "new", "output": "x"}, same))
    found = split_by_file(train, read_dataset(path))
    assert [row.question for row in found.heldout] == ["new"]
    assert (found.shared, len(found.train)) == ((2,), 2)
    assert found.by_kind == {"broken-row": 1, "in-training": 1}
    with pytest.raises(DatasetError, match=r"train\.jsonl: each of its 2 rows is also in train\.jsonl"):
        split_by_file(train, train)
