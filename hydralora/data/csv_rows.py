"""Reading CSV and TSV row by row, so that a quote that is never closed costs one row."""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Any

from hydralora.data.noted_rows import NotedRow, with_names
from hydralora.data.problems import RowError

MAX_ROW = 32 * 2**20  # characters of one row
DELIMITERS = ",;\t|"


def csv_rows(name: str, text: IO[str]) -> Iterator[Any]:
    """The rows of a CSV or TSV file; one that can't be read is a RowError, and doesn't take those after it with it."""
    csv.field_size_limit(MAX_ROW)
    first = text.readline(MAX_ROW)
    delimiter = "\t" if name.lower().removesuffix(".gz").endswith(".tsv") else max(DELIMITERS, key=first.count)
    lines = _PushBack(chain([first], text))
    header: list[str] | None = None
    while lines.begin():
        try:
            cells = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            if header is None:
                raise
            yield _broken(error, lines.used, delimiter)
            lines.give_back()
            continue
        if not cells:
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            yield RowError(
                "ragged-row",
                "",
                f"has {len(cells)} cells where the header has {len(header)}",
                "Put text with separators or line breaks in double quotes.",
            )
            if any(_cells(line, delimiter) == len(header) for line in lines.used[1:]):
                lines.give_back()  # a quote swallowed the rows after this one
        else:
            row = with_names(list(zip(header, cells, strict=True)))
            inner = [_cells(line, delimiter) for line in lines.used[1:-1]]
            swallowed = len(inner) > 2 and set(inner) == {len(header)} != {1}
            yield NotedRow.of(row, _swallowed(len(inner))) if swallowed else row


class _PushBack:
    """Lines that can be given back, as an iterator."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._waiting: deque[str] = deque()
        self.used: list[str] = []  # since `begin`
        self._size = 0

    def begin(self) -> bool:
        """Start a row; False at the end of the file."""
        self.used, self._size = [], 0
        if not self._waiting and (line := next(self._lines, None)) is not None:
            self._waiting.append(line)
        return bool(self._waiting)

    def __iter__(self) -> "_PushBack":
        return self

    def __next__(self) -> str:
        if self._size > MAX_ROW:
            raise StopIteration  # the reader then reports that the row has no end
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.used.append(line)
        self._size += len(line)
        return line

    def give_back(self) -> None:
        """Give back all lines of the row but its first."""
        self._waiting.extendleft(reversed(self.used[1:]))


def _cells(line: str, delimiter: str) -> int:
    """How many cells a line has that is a row of its own."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0


def _swallowed(lines: int) -> RowError:
    found = f"has a cell with {lines} lines that look like rows"
    return RowError("swallowed-rows", "", found, "If they are rows, close the quote in its first line.")


def _broken(error: csv.Error, lines: Sequence[str], delimiter: str) -> RowError:
    if len(lines) == 1:
        return RowError("broken-row", "", f"is not {delimiter!r}-separated values ({error})", "Check its quotes.")
    return RowError(
        "unclosed-quote",
        "",
        f"opens a quote that is not closed: {len(lines) - 1} lines after it would be read as one cell",
        "The row is left out, and those after it are read. Close the quote, or write it twice.",
    )
