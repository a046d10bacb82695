"""The map of the rows, in the Components page: their positions, their colours, and the selected rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hydralora import figures
from hydralora.components.features import sample_rows
from hydralora.data.examples import Example
from hydralora.projection import METHODS, Method

from ...services import Services
from ...services.background import seconds_of
from ...services.cache import ResultKind
from ...services.components import ComponentRequest
from ..reading import Cell, counted, row_cells

HOVER = 90  # characters
LISTED = 200  # rows
PLACES = ResultKind[np.ndarray]("map", keep=12)


@dataclass(frozen=True)
class MapView:
    """What the page shows; figure None leaves the current one, and `help` "" the current explanation."""

    figure: str | None
    caption: str
    help: str = ""


def draw(
    services: Services,
    dataset_id: str,
    request: ComponentRequest,
    method: Method,
    colour_by: figures.ColourBy,
    selected: Sequence[int] | None = None,
    legend: bool = False,
) -> Iterator[MapView]:
    """The map; if it takes longer, PCA's first, then the time taken so far.

    Args:
        selected: rows to select; None leaves the reader's selection.
        legend: whether the components are named in the map; the page names them beside it.
    """
    if not services.components.are_found(dataset_id, request):  # the end of the clustering draws the map
        return
    if not METHODS[method].is_quick and not services.cache.has(PLACES, dataset_id, request.features_key, method):
        first = _view(services, dataset_id, request, "pca", colour_by, selected, legend)
        name, figure = METHODS[method].name, first.figure
        for seconds in seconds_of(lambda: _points(services, dataset_id, request, method)):
            sentence = f"{name} is being computed ({seconds:.0f} s). Meanwhile this is PCA."
            yield MapView(figure, sentence, first.help)
            figure = None
    yield _view(services, dataset_id, request, method, colour_by, selected, legend)


def search(services: Services, dataset_id: str, text: str) -> tuple[list[int], str]:
    """The rows whose question or answer contains a text, in any case, and a sentence on them."""
    needle = " ".join(text.split()).casefold()
    if not needle:
        return [], ""
    examples = services.read_dataset(dataset_id).examples
    indices = [i for i, example in enumerate(examples) if needle in " ".join(example.everything.split()).casefold()]
    count = f"{len(indices):,} of {len(examples):,} rows hold" if len(indices) != 1 else "1 row holds"
    return indices, f"{count} “{text.strip()}”."


def rows_of(services: Services, dataset_id: str, request: ComponentRequest, number: int) -> list[int]:
    """The rows of a component, by its number from 1."""
    labels = services.components.found(dataset_id, request).labels
    return np.flatnonzero(labels == number - 1).tolist()


def rows(services: Services, dataset_id: str, indices: Sequence[int]) -> list[list[Cell]]:
    """The table rows of selected points, 200 at most."""
    examples = services.read_dataset(dataset_id).examples
    return [row_cells(examples[i]) for i in indices if 0 <= i < len(examples)][:LISTED]


def listed(count: int) -> str:
    """The table's title for so many selected rows."""
    return counted(count, "selected row") + (f", the first {LISTED} of them" if count > LISTED else "")


def _drawn(services: Services, dataset_id: str, method: Method) -> list[int]:
    return sample_rows(len(services.read_dataset(dataset_id).examples), METHODS[method].rows, seed=0).tolist()


def _points(services: Services, dataset_id: str, request: ComponentRequest, method: Method) -> np.ndarray:
    clusters = services.components.found(dataset_id, request)
    chosen = _drawn(services, dataset_id, method)
    return services.cache.remember(
        PLACES, dataset_id, request.features_key, method, compute=lambda: clusters.map(method, rows=chosen)
    )


def _view(
    services: Services,
    dataset_id: str,
    request: ComponentRequest,
    method: Method,
    colour_by: figures.ColourBy,
    selected: Sequence[int] | None,
    legend: bool,
) -> MapView:
    data = services.read_dataset(dataset_id)
    drawn = _drawn(services, dataset_id, method)
    examples = [data.examples[i] for i in drawn]
    figure = figures.row_map(
        _points(services, dataset_id, request, method).tolist(),
        _values(services, dataset_id, request, colour_by, drawn, examples),
        colour_by,
        [_escaped(example.question) for example in examples],
        drawn,
        method,
        [component.name for component in services.components.named(dataset_id, request)],
        f"{dataset_id} {request.features_key} {method}",
        dataset_id,
        None if selected is None else sorted(set(selected) & set(drawn)),
        legend,
    )
    whole = len(drawn) == len(data.examples)
    near = "the model takes for alike" if request.settings.by_model else "use the same words"
    return MapView(
        figure,
        "" if whole else f"A random sample is drawn: {len(drawn):,} of {len(data.examples):,} rows.",
        f"Each point is a row. Rows that {near} lie close together. Draw a line around some, or click one, to read "
        f"them below. {METHODS[method].reading}",
    )


def _values(
    services: Services,
    dataset_id: str,
    request: ComponentRequest,
    colour_by: figures.ColourBy,
    drawn: Sequence[int],
    examples: Sequence[Example],
) -> list[str] | list[int]:
    if colour_by == "task":
        return [example.task or "" for example in examples]
    if colour_by == "length":
        return [len(example.everything) for example in examples]
    return services.components.found(dataset_id, request).labels[list(drawn)].tolist()


def _escaped(text: str) -> str:
    """Plotly reads a few HTML tags in hover text; a dataset's text must show as it is."""
    short = text if len(text) <= HOVER else text[:HOVER] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
