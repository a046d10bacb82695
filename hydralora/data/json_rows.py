"""Reading a JSON array of rows piece by piece, so that a gigabyte of them takes the memory of one."""

import json
from collections.abc import Iterator
from typing import IO

from hydralora.data.csv_rows import MAX_ROW
from hydralora.data.noted_rows import with_names
from hydralora.data.values import kind_of
from hydralora.errors import DatasetError, listed

PIECE = 2**16  # characters read at once
MAX_WHOLE = 64 * 2**20  # characters of an object that holds the array: it is read as a whole
SPACES = " \t\n\r"
_DECODER = json.JSONDecoder(object_pairs_hook=with_names)


def json_rows(name: str, text: IO[str]) -> Iterator[object]:
    """The rows of a JSON file: an array, or an object with one array of objects.

    Raises:
        DatasetError: it holds something else, or is nested too deeply.
        ValueError: it is no JSON.
    """
    try:
        buffer = _Buffer(text)
        if buffer.next_character() == "[":
            buffer.skip()
            yield from _elements(name, buffer)
        else:
            yield from _inner_array(name, buffer.rest(MAX_WHOLE + 1))
    except RecursionError as error:
        raise DatasetError(f"{name}: it is nested too deeply. Write a flat array of objects.") from error


class _Buffer:
    """A text of which only the part that is being read is kept."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._read = 0  # characters dropped so far
        self._part, self._at = "", 0

    def next_character(self) -> str:
        """The next character that is no space, which is not skipped; "" at the end."""
        while True:
            while self._at < len(self._part) and self._part[self._at] in SPACES:
                self._at += 1
            if self._at < len(self._part) or not self._more():
                return self._part[self._at : self._at + 1]

    def skip(self) -> None:
        """Skip one character."""
        self._at += 1

    def value(self) -> object:
        """The next value.

        Raises:
            ValueError: there is none, or it is longer than a row may be.
        """
        while True:
            try:
                value, end = _DECODER.raw_decode(self._part, self._at)
            except json.JSONDecodeError as error:
                if self._more():  # it may be cut off at the end of what was read
                    continue
                raise ValueError(f"{error.msg.removesuffix(' at')} at character {self._read + error.pos + 1}") from None
            length = end - self._at
            if len(self._part) - end < len("e+1") and self._more():  # a number may go on
                continue
            self._at += length
            return value

    def rest(self, most: int) -> str:
        """All that is left, at most so many characters."""
        return self._part[self._at :] + self._text.read(most)

    def place(self) -> int:
        """The number of the next character, from 1."""
        return self._read + self._at + 1

    def _more(self) -> bool:
        """Read as much again as is kept, so that a long value is decoded a few times only."""
        left = len(self._part) - self._at
        if left > MAX_ROW:
            raise ValueError(f"a row at character {self.place()} is longer than {MAX_ROW >> 20} million characters")
        added = self._text.read(max(PIECE, left))
        self._read += self._at
        self._part, self._at = self._part[self._at :] + added, 0
        return bool(added)


def _elements(name: str, buffer: _Buffer) -> Iterator[object]:
    if buffer.next_character() != "]":
        yield buffer.value()
        while (mark := buffer.next_character()) == ",":
            buffer.skip()
            buffer.next_character()
            yield buffer.value()
        if mark != "]":
            raise ValueError(f"expecting ',' or ']' at character {buffer.place()}")
    buffer.skip()
    if buffer.next_character():
        raise ValueError(f"extra data at character {buffer.place()}")


def _inner_array(name: str, content: str) -> Iterator[object]:
    if len(content) > MAX_WHOLE:
        raise DatasetError(
            f"{name}: as one JSON object it can be read up to {MAX_WHOLE >> 20} MiB. Save its rows as .jsonl, one per "
            "line, or as one array."
        )
    value = json.loads(content, object_pairs_hook=with_names)
    if not isinstance(value, dict):
        raise DatasetError(f"{name}: it holds {kind_of(value)} at the top. Write an array of objects.")
    arrays = {key: rows for key, rows in value.items() if isinstance(rows, list) and _objects(rows)}
    if len(arrays) != 1:
        actual = f"arrays of objects under {listed(arrays)}" if arrays else "no array of objects"
        raise DatasetError(f"{name}: it holds an object at the top with {actual}. Write one array of objects.")
    (rows,) = arrays.values()
    yield from rows


def _objects(rows: list[object]) -> bool:
    return bool(rows) and all(isinstance(row, dict) for row in rows[:100])
