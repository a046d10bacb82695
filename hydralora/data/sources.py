"""Reading rows from files of every type in `FORMATS`, each also gzipped."""

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from hydralora.data.csv_rows import MAX_ROW, csv_rows
from hydralora.data.noted_rows import with_names
from hydralora.data.problems import RowError
from hydralora.data.values import kind_of
from hydralora.errors import DatasetError

MAX_WHOLE = 512 * 2**20  # bytes of what can only be read as a whole: a JSON array, a row group of a Parquet file
MAX_UNPACKED = 16 * 2**30  # bytes of a gzipped file's content
PROBE = 2**20  # bytes from which the encoding is detected
FEW = 3  # times as many bytes that are not UTF-8 as characters that are: then it is another encoding
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which is its prefix
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OnBytes = Callable[[int], None]
OTHER_ALPHABETS = ["cp1251", "koi8-r", "cp1253", "cp1255", "cp1256", "shift_jis", "gb18030", "big5", "euc-kr", "euc-jp"]


@dataclass(frozen=True)
class Source:
    """A data file, with its type (from its name) and its encoding.

    Attributes:
        type: one of FORMATS.
        packed: with gzip.
        encoding: of its text; empty where it has none.
        guessed: whether the encoding is only likely, by the file's first bytes.
    """

    path: Path
    type: str
    packed: bool
    encoding: str
    guessed: bool = False

    @property
    def name(self) -> str:
        return self.path.name


def open_source(path: str | Path, encoding: str | None = None) -> Source:
    """Detect a file's type and, where none is given, its encoding, without reading its rows.

    Raises:
        DatasetError: there is no such file, or its type can't be read.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise DatasetError(
            f"{path.name}: its type {suffix or '(none)'} can't be read. Use {', '.join(FORMATS)}, or one of these "
            "followed by .gz."
        )
    kind, packed = suffix.removesuffix(".gz"), suffix.endswith(".gz")
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file. Check the path.")
    if FORMATS[kind].binary:
        return Source(path, kind, packed, "")
    if encoding:
        try:
            return Source(path, kind, packed, codecs.lookup(encoding).name)
        except LookupError as error:
            raise DatasetError(f"The encoding {encoding!r} is not known. Use one such as utf-8 or cp1251.") from error
    with _reporting(path.name, kind), path.open("rb") as raw:
        detected = encoding_of(_unpacked(raw, packed).read(PROBE))
    return Source(path, kind, packed, detected, guessed=not detected.startswith("utf"))


def suffix_of(path: Path) -> str:
    """A file's type from its name: ".jsonl", or ".jsonl.gz"."""
    packed = path.suffix.lower() == ".gz"
    return Path(path.stem).suffix.lower() + ".gz" if packed else path.suffix.lower()


def records(source: Source, on_bytes: OnBytes = lambda done: None) -> Iterator[Any]:
    """The rows of a file in order: each row's value, or a RowError if it can't be parsed.

    In a row that is not valid in the file's encoding, lone surrogates stand for the wrong bytes.

    Args:
        on_bytes: called from time to time with the number of bytes read.

    Raises:
        DatasetError: the file as a whole can't be read.
    """
    with _reporting(source.name, source.type), source.path.open("rb") as raw:
        stream = _unpacked(raw, source.packed)
        file_format = FORMATS[source.type]
        errors = "surrogateescape" if source.encoding.startswith("utf-8") else "strict"
        content = (
            stream
            if file_format.binary
            else io.TextIOWrapper(stream, source.encoding, errors, newline=file_format.newline)
        )
        rows = file_format.read(source.name, content)
        for number, row in enumerate(rows):
            if number % 256 == 0:
                on_bytes(raw.tell())
                _refuse_bomb(source, stream)
            yield row
        on_bytes(raw.tell())


def encoding_of(head: bytes) -> str:
    """The encoding of a text from its first bytes: by its BOM, else UTF-16 by its zeros, else UTF-8 or a guess.

    If hardly any character beyond ASCII is UTF-8, it is Windows-1252, a superset of Latin-1's letters; or, where most
    of these characters stand side by side, as in no language of western Europe, charset-normalizer's guess.
    """
    for mark, encoding in BOMS:
        if head.startswith(mark):
            return encoding
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even + odd > len(head) // 4:
        return "utf-16-le" if odd > even else "utf-16-be"
    text = head.decode("utf-8", "surrogateescape")[:-4]  # the last character may be cut in two
    wrong = len(re.findall("[\udc80-\udcff]", text))
    right = len(re.findall("[\u0080-\ud7ff\ue000-\U0010ffff]", text))
    if wrong > FEW * right:  # other encodings hold some bytes that are UTF-8 by chance
        if 2 * len("".join(re.findall("[\udc80-\udcff]{3,}", text))) > wrong:
            from charset_normalizer import from_bytes

            best = from_bytes(head[: 64 * 1024], cp_isolation=OTHER_ALPHABETS).best()
            if best:
                return codecs.lookup(best.encoding).name
        try:
            head.decode("cp1252")
        except UnicodeDecodeError:
            return "latin-1"
        return "cp1252"
    return "utf-8"


def _jsonl(name: str, text: IO[str]) -> Iterator[Any]:
    for line in _lines(text):
        if isinstance(line, RowError):
            yield line
        elif line.strip():
            try:
                yield json.loads(line, object_pairs_hook=with_names)
            except (ValueError, RecursionError) as error:
                yield RowError(
                    "broken-row", "", f"is not JSON ({_reason(error)})", "Write one JSON object on every line."
                )


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):  # its own message counts lines, but there is only one
        return f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _txt(name: str, text: IO[str]) -> Iterator[Any]:
    for line in _lines(text):
        if isinstance(line, RowError):
            yield line
        elif line.strip():
            yield {"text": line.rstrip("\r\n")}


def _lines(text: IO[str]) -> Iterator[Any]:
    """Lines, or a RowError for a line that is too long, whose rest is skipped."""
    while line := text.readline(MAX_ROW):
        if len(line) < MAX_ROW or line.endswith("\n"):
            yield line
            continue
        while line and not line.endswith("\n"):
            line = text.readline(MAX_ROW)
        yield RowError("broken-row", "", f"is longer than {MAX_ROW >> 20} million characters", "Split it.")


def _json(name: str, text: IO[str]) -> Iterator[Any]:
    content = text.read(MAX_WHOLE + 1)
    if len(content) > MAX_WHOLE:
        raise DatasetError(
            f"{name}: as one JSON array it can be read up to {MAX_WHOLE >> 20} MiB. Save it as .jsonl, a row per line."
        )
    try:
        value = json.loads(content, object_pairs_hook=with_names)
    except RecursionError as error:
        raise DatasetError(f"{name}: it is nested too deeply. Write a flat array of objects.") from error
    if isinstance(value, dict):
        arrays = {key: rows for key, rows in value.items() if isinstance(rows, list) and _objects(rows)}
        if len(arrays) != 1:
            actual = f"arrays of objects under {', '.join(map(repr, arrays))}" if arrays else "no array of objects"
            raise DatasetError(f"{name}: it holds an object at the top with {actual}. Write one array of objects.")
        (value,) = arrays.values()
    if not isinstance(value, list):
        raise DatasetError(f"{name}: it holds {kind_of(value)} at the top. Write an array of objects.")
    yield from value


def _objects(rows: list[Any]) -> bool:
    return bool(rows) and all(isinstance(row, dict) for row in rows[:100])


def _parquet(name: str, stream: Any) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(stream) as file:
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).total_byte_size
            if size > MAX_WHOLE:  # a small file can decompress to more than the memory
                raise DatasetError(
                    f"{name}: a row group of it takes {size / 2**20:.0f} MiB, and at most {MAX_WHOLE >> 20} MiB are "
                    "read at once. Write it with smaller row groups, or leave out unused columns."
                )
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _unpacked(raw: Any, packed: bool) -> Any:
    return gzip.GzipFile(fileobj=raw) if packed else raw


def _refuse_bomb(source: Source, stream: Any) -> None:
    if source.packed and stream.tell() > MAX_UNPACKED:
        raise DatasetError(
            f"{source.name}: it unpacks to more than {MAX_UNPACKED >> 30} GiB. Split it into several files."
        )


@contextmanager
def _reporting(name: str, kind: str) -> Iterator[None]:
    """Turn a library's errors about a broken file into a DatasetError that names the file."""
    try:
        yield
    except UnicodeError as error:
        raise DatasetError(f"{name}: its text can't be decoded ({error}). Save it as UTF-8.") from error
    except (OSError, EOFError, ValueError, csv.Error) as error:  # pyarrow's errors derive from OSError and ValueError
        raise DatasetError(f"{name}: it can't be read as {kind[1:]} ({error}). Export it again.") from error


@dataclass(frozen=True)
class Format:
    """A type of data file: its display name and its reader: (file's name, its text or bytes) -> rows.

    Attributes:
        newline: of `io.TextIOWrapper`; "" keeps line ends unchanged.
    """

    name: str
    read: Callable[[str, Any], Iterator[Any]]
    binary: bool = False
    newline: Literal[""] | None = None


FORMATS = {
    ".jsonl": Format("JSONL", _jsonl),
    ".json": Format("JSON", _json),
    ".csv": Format("CSV", csv_rows, newline=""),
    ".tsv": Format("TSV", csv_rows, newline=""),
    ".parquet": Format("Parquet", _parquet, binary=True),
    ".txt": Format("plain text", _txt),
}
SUFFIXES = (*FORMATS, *(f"{suffix}.gz" for suffix in FORMATS))
