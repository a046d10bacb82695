"""The Components page: the components, their number, their names, and the rows as a file."""

import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from hydralora import figures
from hydralora.components import Clusters, Component, overlap
from hydralora.components.dbscan import NOISE
from hydralora.components.export import write_rows
from hydralora.data.progress import OnProgress

from ...services import Services
from ...services.background import Done, in_background
from ...services.components import ComponentRequest
from .one_component import component_of

NEVER_ASSIGNED = (
    " The components set the number of heads and may initialize the router; no row is ever assigned to a head."
)
HELP = {
    "kmeans": "The curve falls steeply while each new component explains something, then bends: that is the elbow. "
    "Small groups that share a vocabulary are counted as one component, so the number may differ from the elbow."
    + NEVER_ASSIGNED,
    "dbscan": "Rows in dense regions have near neighbours; where the curve bends upwards, rows begin to lie apart. A "
    "row with too few neighbours within eps is noise, unless a neighbour has enough." + NEVER_ASSIGNED,
}


@dataclass(frozen=True)
class ListedComponent:
    """One line of the list.

    Attributes:
        number: from 1.
        size: rows; `share` of all rows, 0 to 1; `selected` of them on the map.
        example: the row that is nearest to its centre.
    """

    number: int
    name: str
    size: int
    share: float
    selected: int
    example: str


@dataclass(frozen=True)
class ClusterView:
    """What the page shows of a dataset's components.

    Attributes:
        curve: the figure of how their number was found, with its `help`.
        agreement: a sentence on the task labels, with the table `tasks`; "" where the rows have none.
        components: the choices: (label, number from 1) of each.
        listed: a line of each.
    """

    sentence: str
    k: int
    curve: str
    help: str
    agreement: str
    tasks: str
    components: list[tuple[str, int]]
    listed: list[ListedComponent]


@dataclass(frozen=True)
class Finding:
    """How far the computation is; `fraction` 0 to 1, None until known."""

    what: str
    fraction: float | None


def find(services: Services, dataset_id: str, request: ComponentRequest) -> Iterator[Finding | Done[ClusterView]]:
    """Find a dataset's components: yields its progress whenever that changes, then what to show."""

    def work(on_progress: OnProgress) -> ClusterView:
        services.components.find(dataset_id, request, on_progress)
        return view(services, dataset_id, request)

    by_model = request.settings.by_model
    what = "Finding the components; a model reads every row first" if by_model else "Finding the components"
    previous = None
    for step in in_background(work):
        if isinstance(step, Done):
            yield step
            return
        progress = Finding(what, round(step.done / step.total, 2) if step.total > 1 else None)
        if progress != previous:  # a page that gets the same update again and again responds late
            yield progress
        previous = progress


def view(services: Services, dataset_id: str, request: ComponentRequest) -> ClusterView:
    clusters = services.components.found(dataset_id, request)
    components = services.components.named(dataset_id, request)
    agreement, tasks = _agreement(services, dataset_id, clusters, components)
    return ClusterView(
        sentence_on(clusters),
        clusters.k,
        _curve(clusters, dataset_id),
        HELP[clusters.method],
        agreement,
        tasks,
        [(f"{component.id + 1}: {component.name}", component.id + 1) for component in components],
        listed(services, dataset_id, request),
    )


def listed(
    services: Services, dataset_id: str, request: ComponentRequest, selected: Sequence[int] = ()
) -> list[ListedComponent]:
    """The components in the order of their numbers.

    Args:
        selected: rows that are selected on the map.
    """
    labels = services.components.found(dataset_id, request).labels
    chosen = Counter(labels[[i for i in selected if 0 <= i < len(labels)]].tolist())
    examples = services.read_dataset(dataset_id).examples
    return [
        ListedComponent(
            number=component.id + 1,
            name=component.name,
            size=component.size,
            share=component.share,
            selected=chosen[component.id],
            example=examples[component.nearest[0]].question,
        )
        for component in services.components.named(dataset_id, request)
    ]


def list_value(components: Sequence[ListedComponent], chosen: int = 0) -> dict[str, object]:
    """The value of the page's list (widgets/component_list.py); `chosen` is a number, 0 for none."""
    return {"components": [asdict(component) for component in components], "chosen": chosen}


def rename(services: Services, dataset_id: str, request: ComponentRequest, number: int, name: str) -> ClusterView:
    """Name a component; the name is saved with the dataset, and an empty one restores the terms."""
    clusters = services.components.found(dataset_id, request)
    services.datasets.rename(dataset_id, request.key, clusters.k, component_of(clusters, number).id + 1, name)
    return view(services, dataset_id, request)


def rows_file(services: Services, dataset_id: str, request: ComponentRequest, kind: Literal["csv", "parquet"]) -> str:
    """Every row with its component, as a file to download."""
    components = services.components.named(dataset_id, request)
    path = services.download(
        f"components {dataset_id}.{kind}", f"{request.key} {[component.name for component in components]}"
    )
    if not path.exists():
        examples = services.read_dataset(dataset_id).examples
        building = path.with_stem(f".{secrets.token_hex(4)}")
        write_rows(building, list(examples), services.components.found(dataset_id, request), components)
        os.replace(building, path)
    return str(path)


def _curve(clusters: Clusters, dataset_id: str) -> str:
    dense = clusters.density
    if dense:
        return figures.neighbour_distances(dense.reach.tolist(), dense.eps, dense.min_samples, dataset_id)
    return figures.component_number(clusters.sse, clusters.silhouette, clusters.k, dataset_id)


def sentence_on(clusters: Clusters) -> str:
    """The number of components, how far to trust it, and what else they may follow."""
    heads = f" With {clusters.k} heads, each component can start with one of its own."
    heads += f" {clusters.note}" if clusters.note else ""
    if clusters.choice:
        return clusters.choice.sentence + heads
    if clusters.noise:
        noise = f"{clusters.noise} of {len(clusters.labels)} rows are noise, outside dense regions"
        return f"{clusters.k} components; {noise}.{heads}"
    return f"{clusters.k} components, {'by density' if clusters.method == 'dbscan' else 'as you asked'}.{heads}"


def _agreement(
    services: Services, dataset_id: str, clusters: Clusters, components: Sequence[Component]
) -> tuple[str, str]:
    tasks = services.read_dataset(dataset_id).tasks
    if not tasks:
        return "", ""
    agreed = overlap(clusters.labels, [task or None for task in tasks])
    names = ["noise" if i == NOISE else f"{i + 1}: {components[i].name}" for i in agreed.components]
    return (
        f"Against the task labels: adjusted Rand index {agreed.ari:.2f} (1: the same groups, 0: chance), normalised "
        f"mutual information {agreed.nmi:.2f}. The components are found without the labels.",
        figures.tasks_by_component(agreed.tasks, names, agreed.table.tolist()),
    )
