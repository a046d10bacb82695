"""The map of the rows, in the Clusters tab: where they lie, their colours, and those that a person picks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydralora import figures
from hydralora.components.features import sample_rows
from hydralora.data.examples import Example
from hydralora.projection import Method

from ...services import Asked, Services
from ...services.background import Done, in_background
from ...services.processes import EVERY
from ..data import row_cells

DRAWN: dict[Method, int] = {"pca": 20_000, "umap": 20_000, "tsne": 5_000}  # rows at most; of more an even sample
AT_ONCE = {"pca"}  # what takes less than a second
HOVER = 90  # characters
LISTED = 200  # rows
TOLD = 5  # looks between two tellings of how long it has taken


@dataclass(frozen=True)
class MapView:
    """What the page shows; no figure leaves the one that is there."""

    figure: str | None
    caption: str


def draw(
    services: Services,
    dataset_id: str,
    asked: Asked,
    method: Method,
    colour_by: figures.ColourBy,
    selected: Sequence[int] | None = None,
) -> Iterator[MapView]:
    """The map; where it takes longer, PCA's first, then how long it has been computed.

    Args:
        selected: rows to select; None leaves the reader's selection.
    """
    if not services.has_clusters(dataset_id, asked):  # a choice made while they are found is drawn with them
        yield MapView(None, "The map is drawn once the components are found.")
        return
    if method not in AT_ONCE and not services.remembers(_key(dataset_id, asked, method)):
        first = _view(services, dataset_id, asked, "pca", colour_by, selected)
        name, figure = figures.METHOD_NAMES[method], first.figure
        for ticks, step in enumerate(in_background(lambda on_progress: _points(services, dataset_id, asked, method))):
            if not isinstance(step, Done) and ticks % TOLD == 0:
                told = f"{name} is being computed ({ticks * EVERY:.0f} s); meanwhile this is PCA. {first.caption}"
                yield MapView(figure, told)
                figure = None
    yield _view(services, dataset_id, asked, method, colour_by, selected)


def search(services: Services, dataset_id: str, text: str) -> tuple[list[int], str]:
    """The rows whose question or answer holds a text, whatever its case, and a sentence on them."""
    wanted = " ".join(text.split()).casefold()
    if not wanted:
        return [], ""
    examples = services.read_dataset(dataset_id).examples
    found = [i for i, example in enumerate(examples) if wanted in " ".join(example.everything.split()).casefold()]
    count = f"{len(found):,} of {len(examples):,} rows hold" if len(found) != 1 else "1 row holds"
    return found, f"{count} “{text.strip()}”."


def rows(services: Services, dataset_id: str, indices: Sequence[int]) -> list[list[str | int]]:
    """The table rows of selected points, 200 at most."""
    examples = services.read_dataset(dataset_id).examples
    return [row_cells(examples[i]) for i in indices if 0 <= i < len(examples)][:LISTED]


def listed(count: int) -> str:
    """The table's title for so many selected rows."""
    return f"{count:,} selected row{'s' if count != 1 else ''}" + (
        f", the first {LISTED} of them" if count > LISTED else ""
    )


def _key(dataset_id: str, asked: Asked, method: Method) -> tuple:
    return "map", dataset_id, asked.features_key, method


def _drawn(services: Services, dataset_id: str, method: Method) -> list[int]:
    return sample_rows(len(services.read_dataset(dataset_id).examples), DRAWN[method], seed=0).tolist()


def _points(services: Services, dataset_id: str, asked: Asked, method: Method) -> Any:
    found = services.found_clusters(dataset_id, asked)
    chosen = _drawn(services, dataset_id, method)
    return services.remember(_key(dataset_id, asked, method), lambda: found.map(method, rows=chosen))


def _view(
    services: Services,
    dataset_id: str,
    asked: Asked,
    method: Method,
    colour_by: figures.ColourBy,
    selected: Sequence[int] | None,
) -> MapView:
    data = services.read_dataset(dataset_id)
    drawn = _drawn(services, dataset_id, method)
    examples = [data.examples[i] for i in drawn]
    figure = figures.row_map(
        _points(services, dataset_id, asked, method).tolist(),
        _values(services, dataset_id, asked, colour_by, drawn, examples),
        colour_by,
        [_escaped(example.question) for example in examples],
        drawn,
        method,
        [component.name for component in services.components(dataset_id, asked)],
        f"{dataset_id} {asked.features_key} {method}",
        dataset_id,
        None if selected is None else sorted(set(selected) & set(drawn)),
    )
    whole = len(drawn) == len(data.examples)
    sample = "" if whole else f" A random sample is drawn, {len(drawn):,} of {len(data.examples):,} rows."
    near = "the model takes for alike" if asked.settings.by_model else "use the same words"
    return MapView(
        figure,
        f"Rows that {near} lie close together; lasso some, click one, or search, to read them below. "
        f"{figures.METHOD_READING[method]}{sample}",
    )


def _values(
    services: Services,
    dataset_id: str,
    asked: Asked,
    colour_by: figures.ColourBy,
    drawn: Sequence[int],
    examples: Sequence[Example],
) -> list[Any]:
    if colour_by == "task":
        return [example.task or "" for example in examples]
    if colour_by == "length":
        return [len(example.everything) for example in examples]
    return services.found_clusters(dataset_id, asked).labels[list(drawn)].tolist()


def _escaped(text: str) -> str:
    """Plotly reads a few HTML tags in hover text; a dataset's text must show as it is."""
    short = text if len(text) <= HOVER else text[:HOVER] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
