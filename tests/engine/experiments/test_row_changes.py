"""What a study may change in its rows: their kinds, the kinds' sizes, the answers."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hydralora.data.dataset import read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.examples import Example
from hydralora.errors import DatasetError
from hydralora.experiments.studies.row_changes import RowChanges, changed_rows
from hydralora.experiments.studies.rows import RowFiles, row_files

Rows = tuple[list[Example], list[Example], list[Example]]


@pytest.fixture
def files(tmp_path: Path) -> RowFiles:
    return row_files(tmp_path, str(demo_file("train")), None, 200, 0)


@pytest.fixture
def changed(files: RowFiles, model_folder: Path) -> Callable[..., Rows]:
    """The rows to train on, to choose by and to report, after changes."""

    def change(seed: int = 0, **changes: object) -> Rows:
        return read(changed_rows(files, RowChanges.model_validate(changes), str(model_folder), seed))

    return change


def read(files: RowFiles) -> Rows:
    train, tune, report = (list(read_dataset(str(file)).examples) for file in (files.train, files.tune, files.report))
    return train, tune, report


def tasks(rows: list[Example]) -> Counter[str | None]:
    return Counter(row.task for row in rows)


def test_nothing_is_changed_by_default(files: RowFiles, model_folder: Path) -> None:
    assert changed_rows(files, RowChanges(), str(model_folder), 0) is files


def test_fewer_kinds_have_as_many_rows_in_all(files: RowFiles, changed: Callable[..., Rows]) -> None:
    everything = tasks(read(files)[0])
    size = min(everything.values())
    used: list[set[str | None]] = []
    for kinds in (1, 2, len(everything)):
        train, tune, report = changed(kinds=kinds)
        assert len(tasks(train)) == kinds
        assert size - kinds < len(train) <= size
        assert max(tasks(train).values()) - min(tasks(train).values()) == 0
        assert {*tasks(tune), *tasks(report)} <= set(tasks(train))
        used.append(set(tasks(train)))
    assert used[0] < used[1] < used[2]  # one more kind is added each time
    with pytest.raises(DatasetError, match=f"rows.kinds is 9, but the rows are of {len(everything)} kinds"):
        changed(kinds=9)


def test_kinds_become_rare_by_zipfs_law(files: RowFiles, changed: Callable[..., Rows]) -> None:
    train, _, report = changed(zipf=1)
    first, *rest = (count for _, count in tasks(train).most_common())
    for i, count in enumerate(rest, 2):
        assert count == pytest.approx(first / i, abs=1)
    assert first == max(tasks(read(files)[0])[task] for task, _ in tasks(train).most_common(1))  # as many as there are
    assert report == read(files)[2]


def test_answers_are_exchanged(files: RowFiles, changed: Callable[..., Rows]) -> None:
    before, after = read(files)[0], changed(exchanged=0.5)[0]
    assert [row.question for row in after] == [row.question for row in before]
    assert Counter(row.answer for row in after) == Counter(row.answer for row in before)
    other = sum(one.answer != two.answer for one, two in zip(before, after, strict=True))
    assert 0 < other <= len(before) / 2
    assert changed(exchanged=0.5)[1:] == read(files)[1:]


def test_rows_without_tasks_are_of_the_kinds_that_their_components_are(
    tmp_path: Path, files: RowFiles, model_folder: Path
) -> None:
    everything = read(files)
    for name, rows in zip(("train", "tune", "report"), everything, strict=True):
        lines = [json.dumps({"prompt": row.question, "completion": row.answer}) + "\n" for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    plain = RowFiles(tmp_path / "train.jsonl", tmp_path / "tune.jsonl", tmp_path / "report.jsonl")
    train, _, report = read(changed_rows(plain, RowChanges(kinds=1), str(model_folder), 0))
    whole = {row.question: row.task for rows in everything for row in rows}
    assert len({whole[row.question] for row in (*train, *report)}) == 1


def test_solved_rows_of_its_kind_come_before_each_measured_row(files: RowFiles, changed: Callable[..., Rows]) -> None:
    train, tune, report = read(files)
    solved = {(row.question, row.answer): row.task for row in train}
    after = changed(shots=2)
    assert after[0] == train
    for before, rows in ((tune, after[1]), (report, after[2])):
        for row, shown in zip(before, rows, strict=True):
            *shots, _, _ = [message["content"] for message in shown.messages if message["role"] != "system"]
            assert shown.messages[-2:] == row.messages[-2:]
            assert [solved[pair] for pair in zip(shots[::2], shots[1::2], strict=True)] == [row.task] * 2
            taught = {i for i, message in enumerate(shown.messages) if message["role"] == "assistant"}
            assert taught - set(shown.untaught) == {len(shown.messages) - 1}  # only its own answer is measured


def test_plain_texts_cant_be_shown_as_solved(tmp_path: Path, model_folder: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"Line {i}.", "task": "one"}) + "\n" for i in range(40)))
    files = row_files(tmp_path / "rows", str(texts), None, 200, 0)
    with pytest.raises(DatasetError, match=r"rows\.shots needs rows with questions"):
        changed_rows(files, RowChanges(shots=1), str(model_folder), 0)
