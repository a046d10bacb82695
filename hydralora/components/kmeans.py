"""k-means for k = 1, 2, ..., initialised from Ward's tree, so that the seed has little effect."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.components.features import Vectors, dense, sample_rows

TREE_ROWS = 2000  # at most; Ward's tree needs all pairwise distances
FIT_ROWS = 20_000  # at most; for more rows the centres are fitted to a sample
RANDOM_STARTS = 2  # besides Ward's, which pairs of rows with a shared rare word can mislead
NO_SPREAD = 1e-9  # SSE per row below which every distinct row has its own centre


@dataclass(frozen=True)
class Partition:
    """Rows in k clusters.

    Attributes:
        labels: of each row, (rows,).
        centres: (centres, dims), one a cluster unless some were merged.
        sse: the sum of squared distances to the nearest centre.
        cluster_of: the cluster of each centre, (centres,); None where each centre is one.
    """

    labels: np.ndarray
    centres: np.ndarray
    sse: float
    cluster_of: np.ndarray | None = None

    @property
    def k(self) -> int:
        return len(self.centres) if self.cluster_of is None else int(self.cluster_of.max()) + 1

    def assign(self, vectors: Vectors) -> np.ndarray:
        """The cluster of the nearest centre: (rows,)."""
        labels = nearest(vectors, self.centres)[0]
        return labels if self.cluster_of is None else self.cluster_of[labels]

    def merged(self, cluster_of: np.ndarray) -> "Partition":
        """The same centres in fewer clusters, given for each centre, (centres,)."""
        return Partition(cluster_of[self.labels], self.centres, self.sse, cluster_of)


def partitions(
    vectors: Vectors,
    highest: int,
    seed: int,
    on_done: Callable[[], None] = lambda: None,
    random_starts: int = RANDOM_STARTS,
) -> list[Partition]:
    """k-means for k = 1, 2, ... up to `highest`, or up to the number of distinct vectors.

    Each is the best of a start from the clusters of Ward's tree (Ward 1963), over at most 2,000 rows, and two random
    starts: with random starts alone, neighbouring k reach unrelated optima, and the SSE curve is jagged where its elbow
    is searched.
    """
    fitted: list[Partition] = []
    sample = vectors[sample_rows(vectors.shape[0], FIT_ROWS, seed)]
    with threadpool_limits(1):
        for k, start in enumerate(_starts(sample, highest, seed), 1):
            partition = _fit(vectors, sample, k, start, seed, random_starts)
            if len(np.unique(partition.labels)) < k:
                break
            fitted.append(partition)
            on_done()
            if partition.sse <= NO_SPREAD * vectors.shape[0]:
                break
    return fitted


def nearest(vectors: Vectors, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every row, and the distance to it: (rows,), (rows,)."""
    from sklearn.metrics import pairwise_distances_argmin_min

    with threadpool_limits(1):
        labels, distances = pairwise_distances_argmin_min(vectors, centres.astype(vectors.dtype))
    return labels, distances


def _starts(vectors: Vectors, highest: int, seed: int) -> Iterator[np.ndarray | None]:
    """Initial centres for k = 1, 2, ...; None if the tree's rows have fewer than k distinct vectors."""
    from scipy.cluster.hierarchy import cut_tree, ward

    tree_rows = sample_rows(vectors.shape[0], TREE_ROWS, seed)
    few = vectors[tree_rows]  # (tree rows, dims)
    points = dense(few)
    different = len(np.unique(points.round(6), axis=0))
    highest_here = min(highest, different, len(points) - 1)  # cut_tree leaves as many clusters as rows in one
    yield np.asarray(few.mean(0)).reshape(1, -1)
    if highest_here > 1:
        labels = cut_tree(ward(points), range(2, highest_here + 1))  # (tree rows, k's)
        for column in labels.T:
            yield np.stack([np.asarray(few[column == i].mean(0)).ravel() for i in range(column.max() + 1)])
    for _ in range(highest_here, highest):
        yield None


def _fit(
    vectors: Vectors, sample: Vectors, k: int, start: np.ndarray | None, seed: int, random_starts: int
) -> Partition:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    models = [KMeans(k, init=start, n_init=1)] if start is not None else []
    if random_starts or start is None:
        models.append(KMeans(k, n_init=max(random_starts, 1), random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than k: the caller checks
        model = min((each.fit(sample) for each in models), key=lambda fitted: fitted.inertia_)
    centres = model.cluster_centers_
    if sample.shape[0] == vectors.shape[0]:
        return Partition(model.labels_, centres, float(model.inertia_))
    labels, distances = nearest(vectors, centres)
    return Partition(labels, centres, float((distances**2).sum()))
