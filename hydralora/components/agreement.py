"""Agreement of components with a dataset's task labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hydralora.errors import DatasetError


@dataclass(frozen=True)
class Overlap:
    """Components compared with tasks.

    Attributes:
        ari: adjusted Rand index, 1 for the same partition, about 0 for chance.
        nmi: normalised mutual information, 0 to 1.
        tasks: the tasks, sorted; `components` the labels, -1 for noise.
        table: rows of each task in each component, (tasks, components).
    """

    ari: float
    nmi: float
    tasks: list[str]
    components: list[int]
    table: np.ndarray


def overlap(labels: Sequence[int] | np.ndarray, tasks: Sequence[str | None]) -> Overlap:
    """Agreement over the rows that have a task.

    Raises:
        DatasetError: no row has a task, or the numbers of tasks and labels differ.
    """
    if len(labels) != len(tasks):
        raise DatasetError(
            f"There are {len(labels)} labels, but {len(tasks)} tasks. Give one task, or None, for each row."
        )
    pairs = [(int(label), task) for label, task in zip(labels, tasks, strict=True) if task is not None]
    if not pairs:
        raise DatasetError("No row names its task, so components can't be compared with tasks. Choose a task column.")
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    row_labels, row_tasks = zip(*pairs, strict=True)
    names, task_index = np.unique(row_tasks, return_inverse=True)
    components, component_index = np.unique(row_labels, return_inverse=True)
    table = np.zeros((len(names), len(components)), dtype=int)
    np.add.at(table, (task_index, component_index), 1)
    return Overlap(
        float(adjusted_rand_score(row_tasks, row_labels)),
        float(normalized_mutual_info_score(row_tasks, row_labels)),
        [str(name) for name in names],
        [int(component) for component in components],
        table,
    )
