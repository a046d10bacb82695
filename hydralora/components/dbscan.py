"""DBSCAN: dense groups of rows are components, rows between them are noise."""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.components.features import Vectors, sample_rows
from hydralora.components.kmeans import nearest
from hydralora.errors import ConfigError, DatasetError

NOISE = -1
FIT_ROWS = 10_000  # at most; the neighbours of every row are kept in memory
MIN_SAMPLES = 10


@dataclass(frozen=True)
class Density:
    """Rows in dense components.

    Attributes:
        labels: component of each row, -1 for noise, (rows,).
        cores: the core rows' vectors, (cores, dims), and `core_labels` their components, (cores,).
        eps: distance within which rows are neighbours, 0 to 2 (vectors have length 1).
        min_samples: neighbours, itself included, that make a row a core.
        reach: of each clustered row the distance to its min_samples-th neighbour, sorted; the knee of this curve is
            eps unless it is given.
    """

    labels: np.ndarray
    cores: Vectors
    core_labels: np.ndarray
    eps: float
    min_samples: int
    reach: np.ndarray

    def assign(self, vectors: Vectors) -> np.ndarray:
        """The component of the nearest core: (rows,)."""
        return self.core_labels[nearest(vectors, self.cores)[0]]


def dbscan(vectors: Vectors, seed: int, eps: float | None = None, min_samples: int | None = None) -> Density:
    """DBSCAN (Ester et al. 1996); eps = None takes the knee of the sorted distances to the min_samples-th neighbour.

    Of more than 10,000 rows a sample is clustered; the others join the nearest core within eps, or are noise.
    Components are numbered by size, the largest first.

    Raises:
        ConfigError: eps or min_samples out of range.
        DatasetError: all rows are noise.
    """
    if eps is not None and not 0 < eps <= 2:
        raise ConfigError(f"eps is {eps}. It is a distance between vectors of length 1: choose more than 0, at most 2.")
    if min_samples is not None and min_samples < 1:
        raise ConfigError(f"min_samples is {min_samples}. Choose 1 or more.")
    from sklearn.cluster import DBSCAN

    rows = sample_rows(vectors.shape[0], FIT_ROWS, seed)
    points = vectors[rows]
    least = min(min_samples or MIN_SAMPLES, len(rows))
    with threadpool_limits(1):
        reach = neighbour_distances(points, least)
        eps = eps or knee(reach)
        model = DBSCAN(eps=eps, min_samples=least).fit(points)
    if model.labels_.max() < 0:
        raise DatasetError(
            f"DBSCAN finds no component in {len(rows)} rows: none has {least} rows within a distance of {eps:.3f}. "
            "Give a larger eps or a smaller min_samples, or use k-means."
        )
    order = np.argsort(-np.bincount(model.labels_[model.labels_ >= 0]), kind="stable")
    renumbered = np.append(np.argsort(order), NOISE)  # the last entry is that of label -1
    core_rows = model.core_sample_indices_
    cores, core_labels = points[core_rows], renumbered[model.labels_[core_rows]]
    if len(rows) == vectors.shape[0]:
        labels = renumbered[model.labels_]
    else:
        closest, distances = nearest(vectors, cores)
        labels = np.where(distances <= eps, core_labels[closest], NOISE)
    return Density(labels, cores, core_labels, eps, least, reach)


def neighbour_distances(points: Vectors, min_samples: int) -> np.ndarray:
    """The rows' distances to their min_samples-th neighbour, themselves included, sorted: (rows,)."""
    from sklearn.neighbors import NearestNeighbors

    return np.sort(NearestNeighbors(n_neighbors=min_samples).fit(points).kneighbors(points)[0][:, -1])


def knee(distances: np.ndarray) -> float:
    """The knee (Kneedle) of sorted distances."""
    from kneed import KneeLocator

    if distances[-1] <= 1e-6:  # every row has identical neighbours: any small distance separates the groups
        return 1e-3
    places = np.arange(len(distances))
    position = KneeLocator(places, distances, curve="convex", direction="increasing").knee
    if position is None or position == places[-1]:  # outliers make a step at the end, and Kneedle stops on top of it
        heights = (distances - distances[0]) / (distances[-1] - distances[0] or 1)
        position = np.argmax(places / places[-1] - heights) if len(places) > 1 else 0
    return float(max(distances[position], 1e-3))
