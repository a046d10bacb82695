"""Rows with notes on what is read otherwise than it is written."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hydralora.data.problems import RowError


class NotedRow(dict[str, Any]):
    """A row with notes on what is read otherwise than it is written."""

    notes: tuple[RowError, ...]

    @classmethod
    def of(cls, row: dict[str, Any], *notes: RowError) -> "NotedRow":
        noted = cls(row)
        noted.notes = (*getattr(row, "notes", ()), *notes)
        return noted


def with_names(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A row from its columns' names and values; where a name is there twice, the second is "name (2)"."""
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    counts: Counter[str] = Counter()
    row = {}
    for name, value in pairs:
        counts[name] += 1
        row[name if counts[name] == 1 else f"{name} ({counts[name]})"] = value
    repeated = next(name for name, count in counts.items() if count > 1)
    fix = f"The first is read; '{repeated} (2)' names the second in a mapping."
    return NotedRow.of(row, RowError("repeated-column", repeated, "is there twice", fix))
