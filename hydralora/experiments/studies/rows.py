"""A study's rows: for each seed, those that are trained on, those that settings are chosen by, and those reported."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sklearn.model_selection import train_test_split

from hydralora.data.dataset import read_dataset
from hydralora.data.examples import Example
from hydralora.data.split import split_by_file
from hydralora.errors import DatasetError
from hydralora.files import write_text

PARTS = ("train", "tune", "report")


@dataclass(frozen=True)
class RowFiles:
    """One seed's rows, as files of conversations."""

    train: Path
    tune: Path
    report: Path


def row_files(folder: Path, data: str, heldout: str | None, most: int, seed: int) -> RowFiles:
    """Write one seed's rows, once.

    Args:
        heldout: a file of the rows that are reported; None: some of the data's rows are.
        most: the most rows to report, and to choose settings by; a tenth of the rows, if that is fewer.

    Raises:
        DatasetError: a file can't be used, or has too few rows.
    """
    folder = folder / f"seed-{seed}"
    files = RowFiles(*(folder / f"{part}.jsonl" for part in PARTS))
    if files.report.exists():  # the last one to be written
        return files
    dataset = read_dataset(data)
    train, reported = list(dataset.examples), []
    if heldout:
        rows = split_by_file(dataset, read_dataset(heldout, dataset.mapping))
        train, reported = rows.train, _drawn(rows.heldout, most, seed)[1] if len(rows.heldout) > most else rows.heldout
    share = min(most, len(train) // 10)
    if share < 2:
        raise DatasetError(f"{data}: {len(train)} rows are too few for a study. Give at least 20.")
    if not heldout:
        train, reported = _drawn(train, share, seed)
    train, tuned = _drawn(train, share, seed + 1)
    folder.mkdir(parents=True, exist_ok=True)
    for path, part in ((files.train, train), (files.tune, tuned), (files.report, reported)):
        write_rows(path, part)
    return files


def _drawn(rows: list[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """The rows without `count` of them drawn by seed, and those; both in the rows' order."""
    rest, drawn = train_test_split(range(len(rows)), test_size=count, random_state=seed)
    return [rows[i] for i in sorted(rest)], [rows[i] for i in sorted(drawn)]


def write_rows(path: Path, rows: Iterable[Example]) -> None:
    """Write rows as conversations, one a line."""
    write_text(path, "".join(_lines(rows)))


def _lines(rows: Iterable[Example]) -> Iterable[str]:
    for row in rows:
        read_only = [{"weight": 0} if i in row.untaught else {} for i in range(len(row.messages))]
        messages = [{**message, **mark} for message, mark in zip(row.messages, read_only, strict=True)]
        content = {"text": row.answer} if len(messages) == 1 else {"messages": messages}  # a plain text has no question
        yield json.dumps(content | ({"task": row.task} if row.task else {}), ensure_ascii=False) + "\n"
