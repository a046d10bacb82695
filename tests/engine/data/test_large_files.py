"""Files that are small and stand for gigabytes, or hold what nobody asked for: little memory, and a sentence or the
rows."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydralora.data import dataset
from hydralora.data.dataset import read_dataset
from hydralora.data.json_rows import json_rows
from hydralora.errors import DatasetError

MEMORY = 500 * 2**20  # bytes beyond those of the imports
GOOD = {"instruction": "Add 1 and 2.", "output": "3"}
READ = """
import resource, sys
import pyarrow.parquet
from hydralora.data.dataset import read_dataset
from hydralora.errors import DatasetError
from hydralora.files import file_hash
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        print(len(read_dataset(path).examples), "rows")
    except DatasetError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def packed(path: Path, parts: Iterator[bytes]) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)


def one_line(path: Path) -> None:
    """A gigabyte in one line, after the header."""
    packed(path, (b"instruction,output\n" if i == 0 else b"x" * 2**20 for i in range(1024)))


def objects(path: Path) -> None:
    path.write_bytes(b"[" + b"{}," * 3_000_000 + b"{}]")


def numbers(path: Path) -> None:
    path.write_bytes(b"[" + json.dumps({"text": ""}).encode() + b",7" * 5_000_000 + b"]")


def lists_in_a_line(path: Path) -> None:
    line = json.dumps(GOOD).encode()
    path.write_bytes(line + b"\n" + b'{"instruction": "x", "output": [' + b"[]," * 2_000_000 + b"[]]}\n")


def dictionary(path: Path) -> None:
    """A text of 10 MB that 5,000 rows name: 50 GB."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["x" * 10_000_000]))
    numbers = [f"say {i}" for i in range(5000)]
    table = pa.table({"instruction": numbers, "output": values, "image": values})
    pyarrow.parquet.write_table(table, path)


def long_row(path: Path) -> None:
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in (GOOD, {"instruction": "x", "output": "y " * 15_000_000}))
    )


def deep_line(path: Path) -> None:
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + b"[" * 20_000_000 + b"\n")


def long_word(path: Path) -> None:
    """Not UTF-8, which is said with the word that shows it."""
    path.write_bytes(b"x" * 400_000 + b" caf\xe9 au lait, encore.\n")


FILES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a line of a gigabyte": ("a.csv.gz", one_line, "unpacks to more than 200 times its size"),
    "objects by the million": ("a.json", objects, "found no columns"),
    "numbers by the million": ("b.json", numbers, "None of the first 100,000 rows can be used"),
    "lists in a line": ("a.jsonl", lists_in_a_line, "1 rows"),
    "one text for thousands of rows": ("a.parquet", dictionary, "None of the 5000 rows can be used"),
    "a row of 30 MB": ("a.jsonl", long_row, "1 rows"),
    "a long word of another encoding": ("a.txt", long_word, "1 rows"),
    "a deep line": ("a.jsonl", deep_line, "1 rows"),
}


@pytest.mark.slow
def test_small_files_take_little_memory(tmp_path: Path, user_environment: dict[str, str]) -> None:
    environment = user_environment | {"HYDRALORA_CACHE": str(tmp_path / "cache")}
    paths = []
    for number, (file, write, _) in enumerate(FILES.values()):
        paths.append(tmp_path / f"{number}{file}")
        write(paths[-1])
        assert paths[-1].stat().st_size < 50 * 2**20
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    *told, kilobytes = done.stdout.splitlines()
    for (name, (_, _, message)), sentence in zip(FILES.items(), told, strict=True):
        assert message in sentence, name
        assert len(sentence) < 1000
    assert int(kilobytes) * 1024 < MEMORY


def test_columns_that_nobody_uses_are_not_read(tmp_path: Path) -> None:
    far = pa.array([10**18, 0], pa.timestamp("us"))  # past the year 9999
    nowhere = pa.array([0, 1], pa.timestamp("us", tz="Nowhere/Land"))
    texts = {"question": ["a", "b"], "answer": ["c", "d"]}
    pyarrow.parquet.write_table(pa.table(texts | {"when": far, "where": nowhere}), tmp_path / "rows.parquet")
    data = read_dataset(tmp_path / "rows.parquet")
    assert [(example.question, example.answer) for example in data.examples] == [("a", "c"), ("b", "d")]
    assert not data.by_kind
    pyarrow.parquet.write_table(pa.table({"question": ["a", "b"], "answer": far}), tmp_path / "used.parquet")
    data = read_dataset(tmp_path / "used.parquet")
    assert [example.answer for example in data.examples] == [str(datetime(1970, 1, 1))]
    (problem,) = data.problems
    assert problem.column == "answer"
    assert "a value that can't be read" in problem.found


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"instruction": f"Say {i}.", "output": str(i)}) + "\n" for i in range(2000)]
    path.write_text("".join(rows))

    def append(done: int, total: int) -> None:
        if done:
            path.write_text("".join(rows) + json.dumps(GOOD) + "\n")

    with pytest.raises(DatasetError, match="changed while it was read"):
        read_dataset(path, on_progress=append)
    assert len(read_dataset(path).examples) == 2001
    path.write_text("".join(rows))
    assert len(read_dataset(path).examples) == 2000


def test_a_packed_parquet_file_is_read(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"question": ["a"], "answer": ["c"]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    assert len(read_dataset(tmp_path / "rows.parquet.gz").examples) == 1


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MOST_ROWS", 3)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(GOOD | {"output": str(i)}) + "\n" for i in range(4)))
    with pytest.raises(DatasetError, match="only 3 rows are read at once"):
        read_dataset(path)


class Pieces:
    """A text that gives a few characters at each read."""

    def __init__(self, text: str, size: int) -> None:
        self._text, self._size, self._at = text, size, 0

    def read(self, most: int = -1) -> str:
        end = self._at + (min(most, self._size) if most >= 0 else self._size)
        part, self._at = self._text[self._at : end], end
        return part


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=6), st.integers(1, 9), st.sampled_from([None, 1]))
def test_an_array_in_pieces_is_the_array(rows: list[Any], size: int, indent: int | None) -> None:
    text = json.dumps(rows, indent=indent)
    assert list(json_rows("a.json", Pieces(f" {text}\n", size))) == rows  # type: ignore[arg-type]


@given(st.lists(JSON, min_size=1, max_size=4), st.data())
def test_a_broken_array_is_an_error_with_its_place(rows: list[Any], data: st.DataObject) -> None:
    text = json.dumps(rows)
    cut = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(ValueError, match=r"at character \d+"):
        list(json_rows("a.json", Pieces(text[:cut], data.draw(st.integers(1, 9)))))  # type: ignore[arg-type]
