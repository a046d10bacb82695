"""Export of rows with their components."""

from collections.abc import Sequence
from pathlib import Path

from hydralora.components.clusters import Clusters
from hydralora.components.describe import Component
from hydralora.data.examples import Example
from hydralora.errors import ConfigError
from hydralora.files import csv_cell


def write_rows(
    path: Path, examples: Sequence[Example], clusters: Clusters, components: Sequence[Component] | None = None
) -> None:
    """Write one line per row: its number, question, answer, task, and its component.

    The component is written as `component` (the label, from 0, -1 for noise), `component_number` (from 1, empty for
    noise) and `component_name`.

    Args:
        components: the components whose names are written; None: those of `clusters`.

    Raises:
        ConfigError: the path ends neither with .csv nor with .parquet, or can't be written.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    writers = {".csv": pyarrow.csv.write_csv, ".parquet": pyarrow.parquet.write_table}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ConfigError(f"{path.name}: rows are written as .csv or .parquet. Choose one of these.")

    def text(value: str | None) -> str | None:
        """Parquet keeps it as it is."""
        return str(csv_cell(value)) if write is pyarrow.csv.write_csv and value is not None else value

    names = {component.id: component.name for component in components or clusters.components}
    labels = clusters.labels.tolist()
    table = pa.table(
        {
            "row": [example.row for example in examples],
            "question": [text(example.question) for example in examples],
            "answer": [text(example.answer) for example in examples],
            "task": pa.array([text(example.task) for example in examples], pa.string()),
            "component": labels,
            "component_number": pa.array([label + 1 if label >= 0 else None for label in labels], pa.int64()),
            "component_name": [text(names.get(label, "noise")) for label in labels],
        }
    )
    try:
        write(table, path)
    except OSError as error:
        raise ConfigError(f"{path}: it can't be written ({error.strerror or error}).") from error
