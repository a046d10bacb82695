"""Data files into examples; every row that can't be used is named, with its column and the fix."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hydralora.errors import DatasetError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MAX_UNPACKED = 2 * 2**30  # bytes of a Parquet file's columns
ROLES = ("system", "user", "assistant")
HALF = "half of a character (a lone surrogate). Write the whole character, or drop the row."
WANTED = (
    "Use the columns instruction, input (optional) and output; instruction, context (optional) and response; "
    "prompt and completion; question and answer; or a column messages."
)
Shape = Literal["alpaca", "dolly", "prompt-completion", "question-answer", "messages"]
COLUMNS: dict[Shape, tuple[str, str | None, str]] = {  # question, its context if any, answer
    "alpaca": ("instruction", "input", "output"),
    "dolly": ("instruction", "context", "response"),
    "prompt-completion": ("prompt", None, "completion"),
    "question-answer": ("question", None, "answer"),
}


@dataclass(frozen=True)
class Example:
    """One row as a conversation that ends with the assistant's answer."""

    row: int  # 1-based, in file order
    messages: tuple[dict[str, str], ...]
    task: str | None = None

    @property
    def prompt(self) -> list[dict[str, str]]:
        """The messages before the last answer."""
        return list(self.messages[:-1])

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    @property
    def question(self) -> str:
        """What the user asks, as plain text: this is what is clustered."""
        return "\n".join(message["content"] for message in self.messages if message["role"] == "user")


@dataclass(frozen=True)
class DataFile:
    """A data file that was read in full."""

    name: str
    shape: Shape
    examples: tuple[Example, ...]

    @property
    def tasks(self) -> list[str] | None:
        """Every row's task label, or None where no row has one."""
        labels = [example.task for example in self.examples]
        return [label or "" for label in labels] if any(labels) else None


def read_file(path: str | Path, task_column: str = "task") -> DataFile:
    """Read JSONL, JSON (an array of objects), CSV or Parquet, in one of the forms of `COLUMNS` or with `messages`.

    Raises:
        DatasetError: the file can't be read, is empty, or a row can't be used; the message names the row, the column,
            what was found and the fix.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{path.name}: its type {path.suffix or '(none)'} can't be read. Use {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file. Check the path.")
    rows = list(_read_rows(path))
    if not rows:
        raise DatasetError(f"{path.name}: it holds no rows. {WANTED}")
    shape = _shape(path.name, rows[0])
    convert = _from_messages if shape == "messages" else partial(_from_columns, COLUMNS[shape])
    examples = tuple(convert(_Row(path.name, i, row), task_column) for i, row in enumerate(rows, 1))
    return DataFile(path.name, shape, examples)


def require_different(train: DataFile, evaluation: DataFile) -> None:
    """Refuse held-out rows that are also training rows, which would make every measurement flatter itself.

    Raises:
        DatasetError: naming how many rows are in both, and the first.
    """
    seen = {_normalised(example) for example in train.examples}
    shared = [example.row for example in evaluation.examples if _normalised(example) in seen]
    if shared:
        raise DatasetError(
            f"{evaluation.name}, row {shared[0]}: the same example is in {train.name} ({len(shared)} such rows). "
            "Take them out of one of the two files."
        )


def _normalised(example: Example) -> str:
    return " ".join(" ".join(message["content"] for message in example.messages).lower().split())


def _read_rows(path: Path) -> Iterator[Any]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path)
        elif suffix == ".csv":
            yield from _read_csv(path)
        elif suffix == ".json":
            yield from _read_json(path)
        else:
            yield from _read_jsonl(path)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path.name}: byte {error.start} is not valid UTF-8. Save the file with UTF-8 encoding."
        ) from error
    except (OSError, csv.Error) as error:  # pyarrow's errors derive from OSError and ValueError
        raise DatasetError(f"{path.name}: it can't be read as {suffix[1:]} ({error}). Export it again.") from error
    except ValueError as error:
        raise DatasetError(f"{path.name}: it can't be read as {suffix[1:]} ({error}). Export it again.") from error


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
        if size > MAX_UNPACKED:  # a small file can unpack to more than the memory
            raise DatasetError(
                f"{path.name}: it unpacks to {size / 2**30:.1f} GiB, and at most {MAX_UNPACKED / 2**30:.0f} GiB are "
                "read. Split it, or leave out the columns that aren't used."
            )
        return file.read().to_pylist()


def _read_jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        for line in file:
            if not line.strip():
                continue
            number += 1
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(
                    f"{path.name}, row {number}: this line is not JSON ({error}). Write one JSON object on every line."
                ) from error


def _read_json(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise DatasetError(f"{path.name}: it is nested too deeply. Write a flat array of objects.") from error
    if not isinstance(rows, list):
        raise DatasetError(f"{path.name}: it holds a {_kind(rows)} at the top. Write an array of objects.")
    return rows


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                found = len(reader.fieldnames or ()) + len(row.get(None) or ()) - list(row.values()).count(None)
                raise DatasetError(
                    f"{path.name}, row {number}: it has {found} cells where the header has "
                    f"{len(reader.fieldnames or ())}. Put text with commas or line breaks in double quotes."
                )
            yield row


def _shape(name: str, row: Any) -> Shape:
    columns = set(row) if isinstance(row, dict) else set()
    if "messages" in columns:
        return "messages"
    for shape, (question, _, answer) in COLUMNS.items():
        if {question, answer} <= columns:
            return shape
    found = ", ".join(sorted(map(str, columns))) or f"a {_kind(row)}"
    raise DatasetError(f"{name}, row 1: found {found}. {WANTED}")


@dataclass(frozen=True)
class _Row:
    file: str
    number: int
    values: Any

    def error(self, column: str, text: str) -> DatasetError:
        return DatasetError(f"{self.file}, row {self.number}: column '{column}' {text}")

    def get(self, column: str) -> Any:
        if not isinstance(self.values, dict):
            raise DatasetError(
                f"{self.file}, row {self.number}: found a {_kind(self.values)}. Write an object with columns."
            )
        return self.values.get(column)

    def text(self, column: str, required: bool) -> str:
        value = self.get(column)
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise self.error(column, f"holds a {_kind(value)}. Write text.")
        if required and not value.strip():
            raise self.error(column, "is empty. Fill it in, or drop the row.")
        if not _whole(value):
            raise self.error(column, f"holds {HALF}")
        return value

    def task(self, column: str) -> str | None:
        value = self.get(column)
        return None if value in (None, "") else str(value)


def _from_columns(columns: tuple[str, str | None, str], row: _Row, task_column: str) -> Example:
    asked, about, answer = columns
    question = row.text(asked, required=True)
    context = row.text(about, required=False) if about else ""
    messages = (
        {"role": "user", "content": f"{question}\n\n{context}" if context.strip() else question},
        {"role": "assistant", "content": row.text(answer, required=True)},
    )
    return Example(row.number, messages, row.task(task_column))


def _from_messages(row: _Row, task_column: str) -> Example:
    value = row.get("messages")
    if isinstance(value, str):  # CSV has no lists, so there the column holds JSON
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise row.error("messages", f"is not JSON ({error}). Write a list of messages.") from error
    if not isinstance(value, list) or not value:
        raise row.error("messages", f"holds a {_kind(value)}. Write a list of {{role, content}} messages.")
    messages = tuple(_message(row, i, message) for i, message in enumerate(value, 1))
    turns = [message["role"] for message in messages if message["role"] != "system"]
    if turns != ["user", "assistant"] * (len(turns) // 2) or not turns or "system" in [m["role"] for m in messages[1:]]:
        raise row.error(
            "messages",
            f"has the turns {', '.join(m['role'] for m in messages)}. Write them as user, assistant, ... with the "
            "assistant last; a system message may come first.",
        )
    return Example(row.number, messages, row.task(task_column))


def _message(row: _Row, position: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise row.error("messages", f"holds a {_kind(message)} as message {position}. Write {{role, content}}.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise row.error("messages", f"has the role {role!r} in message {position}. Use {', '.join(ROLES)}.")
    if not isinstance(content, str) or not content.strip():
        raise row.error("messages", f"has no text in message {position}. Fill in its content, or drop the row.")
    if not _whole(content):
        raise row.error("messages", f"holds, in message {position}, {HALF}")
    return {"role": role, "content": content}


def _whole(text: str) -> bool:
    """Whether text can be written as UTF-8; JSON's escapes can spell half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, (int, float)) else type(value).__name__)
