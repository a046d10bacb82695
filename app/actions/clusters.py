"""The Clusters tab: components, the elbow, and the number of heads."""

from dataclasses import dataclass

from app import figures
from app.actions.data import row_cells
from app.services import Services
from hydralora.clustering import Features
from hydralora.projection import Method

COLUMNS = ["#", "rows", "share", "terms", "a typical row"]
MAP_ROWS = 5000  # beyond it the map draws an even sample, and says so
HOVER = 90  # characters


@dataclass(frozen=True)
class ClusterView:
    sentence: str
    k: int
    elbow: str
    sizes: str
    table: list[list[str | int]]


def view(services: Services, dataset_id: str, features: Features, k: int | None) -> ClusterView:
    found = services.clusters(dataset_id, k or None, features)
    data = services.read_dataset(dataset_id)
    how = "as you asked" if k else "at the elbow of the curve"
    rows: list[list[str | int]] = [
        [
            component.id + 1,
            component.size,
            f"{component.size / len(data.examples):.0%}",
            ", ".join(component.terms),
            data.examples[component.nearest[0]].question,
        ]
        for component in found.components
    ]
    return ClusterView(
        f"{found.k} components, {how}: {found.k} heads would give each component one to start with.",
        found.k,
        figures.elbow(found.sse, found.k),
        figures.sizes([component.name for component in found.components], found.sizes),
        rows,
    )


def row_map(services: Services, dataset_id: str, features: Features, k: int | None, method: Method) -> tuple[str, str]:
    """The 2-D map as a figure, and a sentence on what it shows."""
    found = services.clusters(dataset_id, k or None, features)
    data = services.read_dataset(dataset_id)
    step = -(-len(data.examples) // MAP_ROWS)
    shown = list(range(0, len(data.examples), step))
    points = services.remember(("map", dataset_id, k, features, method), lambda: found.map(method, rows=shown))
    figure = figures.component_map(
        points.tolist(),
        [int(found.labels[i]) for i in shown],
        [_escaped(data.examples[i].question) for i in shown],
        method,
        shown,
    )
    sample = f" Every {step}th row is drawn." if step > 1 else ""
    return figure, (
        "Rows that use the same words lie close together; lasso some, or click one, to read them below. "
        "Distances between far groups and the axes mean nothing." + sample
    )


def rows(services: Services, dataset_id: str, indices: list[int]) -> list[list[str | int]]:
    """The table rows of selected points."""
    examples = services.read_dataset(dataset_id).examples
    return [row_cells(examples[i]) for i in indices if 0 <= i < len(examples)]


def _escaped(text: str) -> str:
    """Plotly reads a few HTML tags in hover text; a dataset's text must show as it is."""
    short = text if len(text) <= HOVER else text[:HOVER] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
