"""Problems of rows that can't be used: where, what was found, and what is expected."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TextIO

from hydralora.errors import DatasetError, shortened
from hydralora.files import csv_cell

Kind = Literal[
    "missing-question",
    "missing-answer",
    "wrong-type",
    "unknown-role",
    "turn-order",
    "tool-call",
    "undecodable",
    "broken-row",
    "ragged-row",
    "duplicate",
    "refused-by-template",
    "too-long",
    "answer-lost",
    "marked-bad",
    "unclosed-quote",
    # Of rows that are used, but read otherwise than they are written:
    "value-as-text",
    "answer-untaught",
    "weight-ignored",
    "rejected-left-out",
    "reasoning-left-out",
    "repeated-column",
    "guessed-encoding",
    "swallowed-rows",
    "control-token",
]
SHOWN = 200  # characters of a quoted value


class RowError(DatasetError):
    """Raised by code that can't use a row; the caller adds the row's place."""

    def __init__(self, kind: Kind, column: str, found: str, wanted: str) -> None:
        super().__init__(f"{found}. {wanted}")
        self.kind: Kind = kind
        self.column = column
        self.found = _printable(found)
        self.wanted = wanted

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, ...]]:
        return RowError, (self.kind, self.column, self.found, self.wanted)  # so that it can be copied to a process

    @property
    def values(self) -> dict[str, str]:
        return {"column": self.column, "kind": self.kind, "found": self.found, "wanted": self.wanted}


@dataclass(frozen=True)
class Problem:
    """A row that is left out, or cut.

    Attributes:
        row: 1-based, over all files of a dataset; `file_row` counts within `file`.
        column: where in the row; empty for the row as a whole.
    """

    row: int
    file: str
    file_row: int
    kind: Kind
    column: str
    found: str
    wanted: str

    @property
    def sentence(self) -> str:
        """As "rows.jsonl, row 7: column 'output' is empty. Fill it in, or drop the row."."""
        where = f"column '{shortened(self.column)}'" if self.column else "it"
        return f"{self.file}, row {self.file_row}: {where} {self.found}. {self.wanted}"


@dataclass(frozen=True)
class Note:
    """Rows that are used, but read otherwise than they are written: how many, and the first of them."""

    count: int
    first: Problem

    @property
    def sentence(self) -> str:
        return f"{self.count} {'row' if self.count == 1 else 'rows'}; the first is {self.first.sentence}"


def write_problems(problems: Iterable[Problem], file: TextIO) -> None:
    """Write problems as CSV, one line each."""
    writer = csv.writer(file)
    writer.writerow(["file", "row", "column", "kind", "found", "wanted"])
    for p in problems:
        writer.writerow(map(csv_cell, (p.file, p.file_row, p.column, p.kind, p.found, p.wanted)))


def is_whole(text: str) -> bool:
    """Whether text can be written as UTF-8; wrong bytes and JSON escapes may give lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """The text in one short line, without lone surrogates."""
    line = " ".join(text.split())
    short = line if len(line) <= SHOWN else line[:SHOWN] + "…"
    return short.encode("utf-8", "replace").decode()
