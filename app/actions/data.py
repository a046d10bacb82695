"""The Data tab: reads files; shows their rows, their problems and what the model will read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hydralora.data.dataset import Dataset
from hydralora.data.hub import PREFIX, fetch_dataset
from hydralora.data.mapping import Mapping, UnknownColumns, parse_mapping, save_mapping
from hydralora.data.problems import write_problems
from hydralora.data.split import Split, split_by_file
from hydralora.data.store import DEMO, StoredDataset
from hydralora.errors import DatasetError, shortened
from hydralora.recipe.settings import DataSettings, Recipe

from ..services import Services
from ..services.background import Done, in_background
from ..services.cache import ResultKind
from ..services.reading import read_files
from .reading import Cell, counted, row_cells

SHOWN_ROWS = 100
SHOWN_PROBLEMS = 200
PROBLEM_COLUMNS = ["row", "column", "found", "wanted"]

HELD_OUT = ResultKind[Split]("held-out rows")
NONE = ""  # a mapping's field without a column
OFF = "(none)"  # a mark's column, where every row is learnt whatever it is marked as
MARKS = ("label", "weight")
ENCODINGS = (
    "utf-8",
    "cp1252",
    "cp1250",
    "cp1251",
    "koi8-r",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "shift_jis",
    "gb18030",
    "big5",
)
IN_FORM = tuple(name for name in Mapping.model_fields if name != "missing")


@dataclass(frozen=True)
class DataView:
    """What the page shows of a dataset; `counts` are short facts, the first one its name, and `summary` the rest."""

    counts: list[str]
    summary: str
    problems: str
    problem_table: list[list[Cell]]
    table: list[list[Cell]]


@dataclass(frozen=True)
class NeedsMapping:
    """Files whose columns could not be identified."""

    files: tuple[str, ...]
    message: str
    columns: tuple[str, ...]


def upload(
    services: Services, paths: Sequence[str], mapping: dict[str, str] | None = None
) -> Iterator[str | NeedsMapping | Done[str]]:
    """Add files to the workspace: yields its progress, then the dataset's id, or what must be mapped first.

    Raises:
        HydraError: a file can't be read, or the mapping is wrong.
    """
    files = [Path(path) for path in paths or ()]
    parsed = _mapping(mapping) if mapping else None
    try:
        for step in in_background(lambda on_progress: read_files(files, parsed, on_progress)):
            if isinstance(step, Done):
                yield Done(services.datasets.add(files, parsed).id)
            else:
                yield f"Reading: {step.done / max(step.total, 1):.0%}"
    except UnknownColumns as error:
        yield NeedsMapping(tuple(paths), str(error), tuple(error.columns))


def fetch(services: Services, name: str) -> Iterator[str | NeedsMapping | Done[str]]:
    """Fetch a dataset of the Hub, as owner/name:config@split, and read it like an uploaded file.

    Raises:
        HydraError: it can't be fetched or read.
    """
    name = PREFIX + name.strip().removeprefix(PREFIX)
    for step in in_background(lambda on_progress: fetch_dataset(name)):
        if isinstance(step, Done):
            yield from upload(services, [str(step.value)])
        else:
            yield f"Fetching {name.removeprefix(PREFIX)} from the Hugging Face Hub …"


def remap(services: Services, dataset_id: str, mapping: dict[str, str]) -> Iterator[str | NeedsMapping | Done[str]]:
    """Read a dataset's files by another mapping, as a new dataset: runs on the first one stay valid.

    Raises:
        HydraError: the mapping is wrong, or leaves no usable row.
    """
    return upload(services, [str(file) for file in services.datasets.get(dataset_id).files], mapping)


def hold_out(services: Services, dataset_id: str, path: str) -> str:
    """Add a file of held-out rows to a dataset; returns the id of the new dataset.

    Raises:
        HydraError: the file can't be read, or all its rows are training rows.
    """
    stored = services.datasets.get(dataset_id)
    data = services.read_dataset(dataset_id)
    split_by_file(data, read_files([Path(path or "")], data.mapping))
    added = services.datasets.add(stored.files, stored.mapping, Path(path))
    services.datasets.copy_names(dataset_id, added.id)  # the components are those of the training rows
    return added.id


def remove(services: Services, dataset_id: str) -> None:
    """Delete a dataset's files.

    Raises:
        HydraError: there is none, or a run uses it.
    """
    dataset = services.datasets.get(dataset_id)
    for run in (*services.jobs.active(), *services.jobs.waiting()):
        if _reads(run.recipe(), dataset):
            raise DatasetError(f"Run {run.id} is training on this dataset, or waiting to. Stop it first.")
    services.datasets.remove(dataset_id)


def _reads(recipe: Recipe, dataset: StoredDataset) -> bool:
    read = recipe.data.train_files
    return any(str(file) in read for file in dataset.files)


def choices(services: Services) -> list[tuple[str, str]]:
    """(label, id) of every dataset; the label names the columns of its mapping."""
    return [(_label(dataset), dataset.id) for dataset in services.datasets.all()]


def view(services: Services, dataset_id: str) -> DataView:
    data = services.read_dataset(dataset_id)
    stored = services.datasets.get(dataset_id)
    tasks = sorted(set(data.tasks or []))
    labels = f"Tasks, used for evaluation only: {', '.join(tasks[:12])}{'…' * (len(tasks) > 12)}." if tasks else ""
    encodings = {name for name in data.encodings if name and not name.startswith("utf-8")}
    encoding_note = f"Its text is encoded as {', '.join(sorted(encodings))}, not UTF-8." if encodings else ""
    held_out, shared = _heldout(services, stored)
    return DataView(
        list(
            filter(
                None,
                (
                    stored.name,
                    _usable(data),
                    "mapped columns" if data.shape == "columns" else f"{data.shape.capitalize()} format",
                    held_out,
                    counted(len(tasks), "task") if tasks else "",
                ),
            )
        ),
        " ".join(filter(None, (encoding_note, shared, labels))),
        _problem_sentence(data),
        _problem_table(data),
        [row_cells(example) for example in data.examples[:SHOWN_ROWS]],
    )


def columns(services: Services, dataset_id: str) -> tuple[Sequence[str], dict[str, str]]:
    """A dataset's columns, and which of them holds what, as the form shows it."""
    data = services.read_dataset(dataset_id)
    return data.columns, _chosen(data.mapping)


def problems_file(services: Services, dataset_id: str) -> str:
    """Every problem of a dataset as a CSV file to download."""
    data = services.read_dataset(dataset_id)
    path = services.download(f"problems {dataset_id}.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        write_problems(data.problems, file)
    return str(path)


def mapping_file(services: Services, dataset_id: str) -> str:
    """A dataset's mapping as a file to download and reuse."""
    path = services.download(f"mapping {dataset_id}.yaml")
    save_mapping(services.read_dataset(dataset_id).mapping, path)
    return str(path)


def _mapping(chosen: dict[str, str]) -> Mapping:
    given = {name: value for name, value in chosen.items() if value != NONE}
    return parse_mapping(given | {name: "" for name in MARKS if given.get(name) == OFF}, "Columns")


def _chosen(mapping: Mapping) -> dict[str, str]:
    """A mapping's values in the form."""
    values = mapping.model_dump()
    off = {name: OFF for name in MARKS if values[name] == ""}
    return {name: values[name] or NONE for name in IN_FORM} | off


def _label(dataset: StoredDataset) -> str:
    marks = [", ".join(dataset.mapping.columns)] if dataset.mapping else []
    if dataset.heldout and dataset.id != DEMO:
        marks.append(f"held out: {dataset.heldout.name}")
    return f"{dataset.name} ({'; '.join(marks)})" if marks else dataset.name


def _usable(data: Dataset) -> str:
    count, rows = len(data.examples), data.rows
    return counted(rows, "row") if count == rows else f"{count:,} of {counted(rows, 'row')} can be used"


def _heldout(services: Services, stored: StoredDataset) -> tuple[str, str]:
    """How many rows are held out, and a sentence on those that are not because they are training rows."""
    if stored.heldout is None:
        share = DataSettings.model_fields["eval_fraction"].default
        return f"{share:.0%} held out by a run", ""
    heldout, data = stored.heldout, services.read_dataset(stored.id)
    split = services.cache.remember(
        HELD_OUT, stored.id, compute=lambda: split_by_file(data, read_files([heldout], data.mapping))
    )
    shared = (
        f"{counted(len(split.shared), 'held-out row')} left out: also among the training rows." if split.shared else ""
    )
    return f"{len(split.heldout):,} held out", shared


def _problem_sentence(data: Dataset) -> str:
    notes = " ".join(f"{kind.replace('-', ' ').capitalize()}: {note.sentence}" for kind, note in data.notes.items())
    return " ".join(filter(None, (_left_out(data), notes)))


def _left_out(data: Dataset) -> str:
    if not data.by_kind:
        return ""
    kinds = ", ".join(f"{count} {kind.replace('-', ' ')}" for kind, count in data.by_kind.items())
    count = sum(data.by_kind.values())
    limit_note = f" The first {SHOWN_PROBLEMS} are shown." if count > SHOWN_PROBLEMS else ""
    return f"Left out: {kinds}. Each row is listed below with its fix.{limit_note}"


def _problem_table(data: Dataset) -> list[list[Cell]]:
    several = len(data.files) > 1
    return [
        [
            f"{problem.file}, {problem.file_row}" if several else problem.row,
            shortened(problem.column),
            problem.found,
            problem.wanted,
        ]
        for problem in islice(data.problems, SHOWN_PROBLEMS)
    ]
