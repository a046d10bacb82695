"""The Data tab: a file in, its first rows out."""

from dataclasses import dataclass
from pathlib import Path

from app.services import Services
from hydralora.data.examples import Example

SHOWN_ROWS = 100
COLUMNS = ["row", "question", "answer", "task"]
WIDTHS: list[str | int] = ["9%", "46%", "25%", "20%"]


@dataclass(frozen=True)
class DataView:
    summary: str
    table: list[list[str | int]]


def upload(services: Services, path: str, name: str) -> str:
    """Keep an uploaded file; returns its dataset id."""
    return services.datasets.add(Path(path), name).id


def choices(services: Services) -> list[tuple[str, str]]:
    return [(dataset.name, dataset.id) for dataset in services.datasets.all()]


def view(services: Services, dataset_id: str) -> DataView:
    data = services.read_dataset(dataset_id)
    stored = services.datasets.get(dataset_id)
    tasks = sorted(set(data.tasks or []))
    heldout = (
        f"{len(stored.heldout.read_text(encoding='utf-8').splitlines())} more are held out"
        if stored.heldout
        else ("a tenth of them will be held out for evaluation")
    )
    labels = f" Task labels, used for evaluation only: {', '.join(tasks[:12])}." if tasks else ""
    shown = f" The first {SHOWN_ROWS} are shown." if len(data.examples) > SHOWN_ROWS else ""
    return DataView(
        f"{stored.name}: {len(data.examples)} training rows; {heldout}.{labels}{shown}",
        [row_cells(example) for example in data.examples[:SHOWN_ROWS]],
    )


def row_cells(example: Example) -> list[str | int]:
    """An example as a table row, in COLUMNS order."""
    return [example.row, example.question, example.answer, example.task or ""]
