"""Reading rows from files of every type in `FORMATS`, each also gzipped."""

import codecs
import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from hydralora.data.csv_rows import MAX_ROW, csv_rows
from hydralora.data.json_rows import json_rows
from hydralora.data.noted_rows import with_names
from hydralora.data.parquet_rows import parquet_rows
from hydralora.data.problems import RowError
from hydralora.data.unpacking import in_a_file, unpacked
from hydralora.errors import DatasetError, first_line

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
        detected = encoding_of((unpacked(path.name, raw) if packed else raw).read(PROBE))
    return Source(path, kind, packed, detected, guessed=not detected.startswith("utf"))


def suffix_of(path: Path) -> str:
    """A file's type from its name: ".jsonl", or ".jsonl.gz"."""
    packed = path.suffix.lower() == ".gz"
    return Path(path.stem).suffix.lower() + ".gz" if packed else path.suffix.lower()


def records(
    source: Source, on_bytes: OnBytes = lambda done: None, wanted: Collection[str] | None = None
) -> Iterator[Any]:
    """The rows of a file in order: each row's value, or a RowError if it can't be parsed.

    In a row that is not valid in the file's encoding, lone surrogates stand for the wrong bytes.

    Args:
        on_bytes: called from time to time with the number of bytes read.
        wanted: the columns that are read, where a type has them apart; None: all.

    Raises:
        DatasetError: the file as a whole can't be read.
    """
    file_format = FORMATS[source.type]
    with ExitStack() as opened:
        opened.enter_context(_reporting(source.name, source.type))
        raw = opened.enter_context(source.path.open("rb"))
        stream: Any = unpacked(source.name, raw) if source.packed else raw
        if source.packed and file_format.binary:
            stream = opened.enter_context(in_a_file(stream))
        errors = "surrogateescape" if source.encoding.startswith("utf-8") else "strict"
        content = (
            stream
            if file_format.binary
            else io.TextIOWrapper(stream, source.encoding, errors, newline=file_format.newline)
        )
        read = file_format.read
        rows = parquet_rows(source.name, stream, wanted) if read is parquet_rows else read(source.name, content)
        for number, row in enumerate(rows):
            if number % 256 == 0:
                on_bytes(raw.tell())
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


@contextmanager
def _reporting(name: str, kind: str) -> Iterator[None]:
    """Turn a library's errors about a broken file into a DatasetError that names the file."""
    try:
        yield
    except UnicodeError as error:
        raise DatasetError(f"{name}: its text can't be decoded ({first_line(error)}). Save it as UTF-8.") from error
    except (
        OSError,
        EOFError,
        ValueError,
        csv.Error,
        zlib.error,
    ) as error:  # pyarrow's errors derive from OSError and ValueError
        raise DatasetError(f"{name}: it can't be read as {kind[1:]} ({first_line(error)}). Export it again.") from error


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
    ".json": Format("JSON", json_rows),
    ".csv": Format("CSV", csv_rows, newline=""),
    ".tsv": Format("TSV", csv_rows, newline=""),
    ".parquet": Format("Parquet", parquet_rows, binary=True),
    ".txt": Format("plain text", _txt),
}
SUFFIXES = (*FORMATS, *(f"{suffix}.gz" for suffix in FORMATS))
