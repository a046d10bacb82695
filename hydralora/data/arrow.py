"""Usable rows and problems as Arrow files, written in batches and mapped into memory."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from hydralora.data.examples import Example

BATCH = 2000  # rows written at once
ROWS = {"row": "int64", "messages": "string", "task": "string", "untaught": "list"}
PROBLEMS = {
    "row": "int64",
    "column": "string",
    "kind": "string",
    "found": "string",
    "wanted": "string",
}


class Examples(Sequence[Example]):
    """A dataset's usable rows, created on access, so that a gigabyte of them takes no memory."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [_example(values) for values in self._table.take(list(range(len(self))[index])).to_pylist()]
        position = range(len(self))[index]
        return _example(self._table.slice(position, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Example]:
        for batch in self._table.to_batches():
            yield from map(_example, batch.to_pylist())

    def tasks(self) -> list[str]:
        """Every row's task label, empty where it has none."""
        return [label or "" for label in self._table["task"].to_pylist()]


def stored_values(example: Example) -> dict[str, Any]:
    """A row of the file of usable rows."""
    messages = json.dumps(example.messages, ensure_ascii=False)
    return {"row": example.row, "messages": messages, "task": example.task, "untaught": list(example.untaught)}


def _example(values: dict[str, Any]) -> Example:
    untaught = tuple(values["untaught"] or ())
    return Example(values["row"], tuple(json.loads(values["messages"])), values["task"], untaught)


class Writer:
    """An Arrow file that grows by batches of rows."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        import pyarrow as pa

        types = {"int64": pa.int64(), "string": pa.string(), "list": pa.list_(pa.int32())}
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "Writer":
        import pyarrow as pa

        self._file = pa.ipc.new_file(self._path, self._schema)
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        self._file.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def __exit__(self, *error: object) -> None:
        if self._rows:
            self._write()
        self._file.close()


def read_table(path: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
