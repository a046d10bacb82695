"""A dataset: its usable rows and its problems, cached as Arrow files and read on demand."""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from hydralora.data.arrow import PROBLEMS, ROWS, Examples, Writer, read_table, stored_values
from hydralora.data.examples import Example, to_example
from hydralora.data.hub import PREFIX, fetch_dataset
from hydralora.data.mapping import Mapping, Shape, detect, parse_mapping
from hydralora.data.problems import Note, Problem, RowError, is_whole
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.sources import Source, open_source, records
from hydralora.data.values import refuse_long
from hydralora.errors import DatasetError, found, listed
from hydralora.files import building_folder, cache_root, file_hash

ABOUT = "dataset.json"  # what is known of the rows beside them
VERSION = 3  # of how rows are read; caches of other versions are not used
PEEKED = 100  # rows from which the columns are detected
KEPT = 20  # datasets in the cache; older ones are read again when needed
LONG_WORD = 40  # characters
MOST_ROWS = 5_000_000
USELESS = 100_000  # rows after which a file is given up if none could be used


@dataclass(frozen=True)
class Dataset:
    """The rows read from one or several files.

    Attributes:
        files: the files' names.
        hashes: sha256 of each file's content.
        encodings: of each file's text; empty where it has none.
        mapping: which column holds what.
        file_rows: number of rows in each file, including bad ones.
        columns: of the first rows.
        by_kind: number of problems of each kind.
        notes: by kind, the rows that are used, but read otherwise than they are written.
        examples: the usable rows, in order.
    """

    files: tuple[str, ...]
    hashes: tuple[str, ...]
    encodings: tuple[str, ...]
    mapping: Mapping
    file_rows: tuple[int, ...]
    columns: tuple[str, ...]
    by_kind: dict[str, int]
    notes: dict[str, Note]
    examples: Examples
    _problems: Any  # a table; like the examples', it stays mapped when its file is evicted from the cache

    @property
    def name(self) -> str:
        return ", ".join(self.files)

    @property
    def rows(self) -> int:
        """Number of rows, including bad ones."""
        return sum(self.file_rows)

    @property
    def shape(self) -> Shape:
        return self.mapping.shape

    @property
    def problems(self) -> Iterator[Problem]:
        """Every row that was left out, in order."""
        for batch in self._problems.to_batches():
            for values in batch.to_pylist():
                yield self.problem(values.pop("row"), RowError(**values))

    def problem(self, row: int, flaw: RowError) -> Problem:
        """A row's problem, with the file that the row is in."""
        before = 0
        for file, rows in zip(self.files, self.file_rows, strict=True):
            if row <= before + rows:
                return Problem(row=row, file=file, file_row=row - before, **flaw.values)  # type: ignore[arg-type]
            before += rows
        raise IndexError(f"row {row} of {before}")

    @cached_property
    def tasks(self) -> list[str] | None:
        """Every usable row's task label, or None where no row has one."""
        labels = self.examples.tasks()
        return labels if any(labels) else None


def read_dataset(
    files: Sequence[str | Path] | str | Path,
    mapping: Mapping | None = None,
    task_column: str | None = None,
    on_progress: OnProgress = ignore_progress,
    encoding: str | None = None,
) -> Dataset:
    """Read files of rows; a bad row becomes a problem, the others become examples.

    Results are cached under a hash of the files' content, not of their names.

    Args:
        files: paths, or datasets of the Hub as hub:OWNER/NAME (see hydralora.data.hub).
        mapping: which column holds what; None detects it from the columns.
        task_column: the column with a row's task, in place of the mapping's.
        on_progress: called with the bytes read and all bytes; an exception in it stops the reading and leaves nothing.
        encoding: of the files' text, in place of the mapping's; None detects it.

    Raises:
        DatasetError: a file can't be read at all, its columns aren't known, or no row can be used.
    """
    encoding = encoding or (mapping.encoding if mapping else None)
    sources, hashes, folder = _found(files, mapping, task_column, encoding)
    if not (folder / ABOUT).exists():
        _build(folder, sources, mapping, task_column, encoding, on_progress, hashes)
    return _opened(folder, sources, hashes)


def read_before(files: Sequence[str | Path] | str | Path, mapping: Mapping | None = None) -> Dataset | None:
    """The rows of files that `read_dataset` has read before, as they are now; None if it hasn't.

    Raises:
        DatasetError: a file is missing, or its type can't be read.
    """
    sources, hashes, folder = _found(files, mapping, None, mapping.encoding if mapping else None)
    return _opened(folder, sources, hashes) if (folder / ABOUT).exists() else None


def _found(
    files: Sequence[str | Path] | str | Path, mapping: Mapping | None, task_column: str | None, encoding: str | None
) -> tuple[list[Source], tuple[str, ...], Path]:
    """The sources, the hashes of their content, and the folder in the cache of what is read from them."""
    paths = [files] if isinstance(files, (str, Path)) else files
    if not paths:
        raise DatasetError("No data file is given. Give at least one.")
    local = (fetch_dataset(str(path)) if str(path).startswith(PREFIX) else path for path in paths)
    sources = [open_source(path, encoding) for path in local]
    hashes = tuple(file_hash(source.path) for source in sources)
    return sources, hashes, cache_root() / "datasets" / _key(sources, hashes, mapping, task_column)


def _key(sources: Sequence[Source], hashes: Sequence[str], mapping: Mapping | None, task_column: str | None) -> str:
    content: list[Any] = [VERSION, mapping and mapping.model_dump(), task_column]
    content += ([s.type, s.packed, s.encoding, digest] for s, digest in zip(sources, hashes, strict=True))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _build(
    folder: Path,
    sources: Sequence[Source],
    mapping: Mapping | None,
    task_column: str | None,
    encoding: str | None,
    on_progress: OnProgress,
    hashes: Sequence[str],
) -> None:
    sizes = [source.path.stat().st_size for source in sources]
    starts = [0, *accumulate(sizes)]
    progress = [_shifted(on_progress, start, starts[-1]) for start in starts]
    heads = [list(islice(records(source, progress[i]), PEEKED)) for i, source in enumerate(sources)]
    names = (str(name) for head in heads for row in head if isinstance(row, dict) for name in row)
    columns = [name for name in dict.fromkeys(names) if is_whole(name)]
    if not any(heads):
        raise DatasetError(f"{sources[0].name}: it holds no rows. Add rows, one for each example.")
    mapping = _checked(mapping, columns, sources[0].name)
    if task_column:
        mapping = mapping.model_copy(update={"task": task_column})
    if encoding:
        mapping = mapping.model_copy(update={"encoding": encoding})
    mapping = mapping.with_marks(list(chain.from_iterable(heads)))
    wanted = mapping.reads(columns)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with building_folder(folder.parent) as building:
        about = {"mapping": mapping.model_dump(), "columns": columns}
        streams = (records(source, progress[i], wanted) for i, source in enumerate(sources))
        about |= _write(building, streams, mapping, sources)
        _refuse_changed(sources, hashes)
        (building / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        with suppress(OSError):  # another process has written the same files
            os.replace(building, folder)
    _forget_old(folder.parent)


def _refuse_changed(sources: Sequence[Source], hashes: Sequence[str]) -> None:
    """Refuse what was read of a file that changed meanwhile: it would be found again under the hash of the old one."""
    for source, expected in zip(sources, hashes, strict=True):
        if file_hash(source.path) != expected:
            raise DatasetError(f"{source.name}: it changed while it was read. Read it again once it is written.")


def _shifted(on_progress: OnProgress, start: int, total: int) -> Callable[[int], None]:
    return lambda done: on_progress(start + done, total)


def _checked(mapping: Mapping | None, columns: Sequence[str], file: str) -> Mapping:
    if mapping is None:
        return detect(columns, file)
    named = [*mapping.columns, *(name for name in (mapping.label, mapping.weight) if name)]
    if missing := [name for name in named if name not in columns]:
        raise DatasetError(
            f"{file}: the mapping names the column {found(missing[0])}; the file has {listed(columns)}. "
            "Name one of them."
        )
    return mapping


def _write(folder: Path, files: Iterable[Iterable[Any]], mapping: Mapping, sources: Sequence[Source]) -> dict[str, Any]:
    """Write rows.arrow and problems.arrow; returns each file's number of rows, and problems and notes by kind."""
    first: Problem | None = None
    file_rows = [0] * len(sources)
    by_kind: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    first_noted: dict[str, Problem] = {}
    row_by_hash: dict[int, int] = {}  # hash of a row's messages -> the row
    number = 0
    with Writer(folder / "rows.arrow", ROWS) as good, Writer(folder / "problems.arrow", PROBLEMS) as bad:
        for index, rows in enumerate(files):
            source = sources[index]
            for row in rows:
                number += 1
                file_rows[index] += 1
                if number > MOST_ROWS:
                    raise DatasetError(f"{source.name}: only {MOST_ROWS:,} rows are read at once. Split it.")
                if first and number > USELESS and not row_by_hash:
                    raise DatasetError(f"{first.sentence} None of the first {USELESS:,} rows can be used.")
                try:
                    example, notes = to_example(row, mapping, number)
                    values = stored_values(example)
                    refuse_long(len(values["messages"]))
                    twin = row_by_hash.setdefault(int.from_bytes(_digest(values["messages"])), number)
                    if twin != number:
                        raise RowError("duplicate", "", f"is the same as row {twin}", "Drop one of the two.")
                    good.add(values)
                except RowError as flaw:
                    first = first or _problem(flaw, number, source, file_rows[index])
                    by_kind[flaw.kind] += 1
                    bad.add({"row": number} | flaw.values)
                    continue
                for note in (*notes, *_guessed(source, example)):
                    noted[note.kind] += 1
                    first_noted.setdefault(note.kind, _problem(note, number, source, file_rows[index]))
    if first and not row_by_hash:
        raise DatasetError(f"{first.sentence}{'' if number == 1 else f' None of the {number} rows can be used.'}")
    notes_by_kind = {kind: {"count": noted[kind], "first": asdict(problem)} for kind, problem in first_noted.items()}
    return {"file_rows": file_rows, "by_kind": dict(by_kind), "notes": notes_by_kind}


def _problem(flaw: RowError, row: int, source: Source, file_row: int) -> Problem:
    return Problem(row, source.name, file_row, **flaw.values)  # type: ignore[arg-type]


def _guessed(source: Source, example: Example) -> Iterator[RowError]:
    """A note on a row whose text is only likely to be right."""
    if source.guessed and (odd := re.search(r"[^\x00-\x7f]", example.everything)):
        around = example.everything[max(0, odd.start() - LONG_WORD) : odd.start() + LONG_WORD]
        (word, *_) = re.findall(r"\w*[^\x00-\x7f]\w*", around)
        said = f"is not UTF-8; read as {source.encoding}, it holds {word!r}"
        yield RowError(
            "guessed-encoding", "", said, "If that is wrong, set the mapping's encoding, for example to cp1251."
        )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _forget_old(folder: Path) -> None:
    folders = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.stat().st_mtime
    )
    for path in folders[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _opened(folder: Path, sources: Sequence[Source], hashes: tuple[str, ...]) -> Dataset:
    os.utime(folder)  # so that it is not among the old ones
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return Dataset(
        files=tuple(source.name for source in sources),
        hashes=hashes,
        encodings=tuple(source.encoding for source in sources),
        mapping=parse_mapping(about["mapping"]),
        file_rows=tuple(about["file_rows"]),
        columns=tuple(about["columns"]),
        by_kind=about["by_kind"],
        notes={kind: Note(note["count"], Problem(**note["first"])) for kind, note in about["notes"].items()},
        examples=Examples(read_table(folder / "rows.arrow")),
        _problems=read_table(folder / "problems.arrow"),
    )
