"""The Clusters tab: components, their number and how sure it is, and the map of the rows."""

from collections.abc import Iterator
from dataclasses import dataclass

from app import figures
from app.actions.background import Done, in_background
from app.actions.data import row_cells
from app.services import Clustering, Services
from hydralora.clustering import Clusters, overlap
from hydralora.clustering.export import write_rows
from hydralora.projection import Method

COLUMNS = ["#", "rows", "terms", "a typical row", "an outlier"]
MAP_ROWS = 20_000  # beyond it the map draws an even sample, and says so
HOVER = 90  # characters
NOISE = -1


@dataclass(frozen=True)
class ClusterView:
    """What the page shows of a dataset's components; `tasks` is the table of tasks by components, if rows have any."""

    sentence: str
    k: int
    curve: str
    sizes: str
    table: list[list[str | int]]
    agreement: str
    tasks: str


def find(services: Services, dataset_id: str, asked: Clustering) -> Iterator[str | Done[ClusterView]]:
    """Cluster a dataset: yields how far it is, then what to show."""
    for step in in_background(lambda on_progress: services.clusters(dataset_id, asked, on_progress)):
        if isinstance(step, Done):
            yield Done(view(services, dataset_id, asked))
        elif step[1] > 1:
            yield f"Clustering: {step[0] / step[1]:.0%}"
        else:
            yield "Clustering …"


def view(services: Services, dataset_id: str, asked: Clustering) -> ClusterView:
    found = services.clusters(dataset_id, asked)
    examples = services.read_dataset(dataset_id).examples
    rows: list[list[str | int]] = [
        [
            component.id + 1,
            f"{component.size} ({component.share:.0%})",
            ", ".join(component.terms),
            examples[component.nearest[0]].question,
            examples[component.outliers[0]].question,
        ]
        for component in found.components
    ]
    agreement, tasks = _agreement(services, dataset_id, found)
    return ClusterView(
        _sentence(found),
        found.k,
        figures.component_number(found.sse, found.silhouette, found.k) if found.sse else "",
        figures.sizes([component.name for component in found.components], found.sizes),
        rows,
        agreement,
        tasks,
    )


def row_map(services: Services, dataset_id: str, asked: Clustering, method: Method) -> tuple[str, str]:
    """The 2-D map as a figure, and a sentence on what it shows."""
    found = services.clusters(dataset_id, asked)
    examples = services.read_dataset(dataset_id).examples
    step = -(-len(examples) // MAP_ROWS)
    shown = list(range(0, len(examples), step))
    points = services.remember(("map", dataset_id, asked, method), lambda: found.map(method, rows=shown))
    figure = figures.component_map(
        points.tolist(),
        [int(found.labels[i]) for i in shown],
        [_escaped(example.question) for example in examples[::step]],
        method,
        shown,
    )
    sample = f" Every {step}th row is drawn, {len(shown):,} of {len(examples):,}." if step > 1 else ""
    return figure, (
        "Rows that use the same words lie close together; lasso some, or click one, to read them below. "
        "Distances between far groups and the axes mean nothing." + sample
    )


def rows(services: Services, dataset_id: str, indices: list[int]) -> list[list[str | int]]:
    """The table rows of selected points."""
    examples = services.read_dataset(dataset_id).examples
    return [row_cells(examples[i]) for i in indices if 0 <= i < len(examples)]


def rows_file(services: Services, dataset_id: str, asked: Clustering) -> str:
    """Every row with its component, as a CSV file to download."""
    path = services.download(f"components {dataset_id}.csv")
    examples = services.read_dataset(dataset_id).examples
    write_rows(path, list(examples), services.clusters(dataset_id, asked))
    return str(path)


def _sentence(found: Clusters) -> str:
    heads = f" {found.k} heads would give each component one to start with."
    if found.choice:
        return found.choice.sentence + heads
    if found.noise:
        return f"{found.k} components, and {found.noise} rows that are noise: they lie in no dense part.{heads}"
    return f"{found.k} components, {'by density' if found.method == 'dbscan' else 'as you asked'}.{heads}"


def _agreement(services: Services, dataset_id: str, found: Clusters) -> tuple[str, str]:
    tasks = services.read_dataset(dataset_id).tasks
    if not tasks:
        return "", ""
    agreed = overlap(found.labels, [task or None for task in tasks])
    names = ["noise" if i == NOISE else f"component {i + 1}" for i in agreed.components]
    return (
        f"Against the task labels: adjusted Rand index {agreed.ari:.2f} (1: the same groups, 0: chance), normalised "
        f"mutual information {agreed.nmi:.2f}. The clustering never saw the labels.",
        figures.tasks_by_component(agreed.tasks, names, agreed.table.tolist()),
    )


def _escaped(text: str) -> str:
    """Plotly reads a few HTML tags in hover text; a dataset's text must show as it is."""
    short = text if len(text) <= HOVER else text[:HOVER] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
