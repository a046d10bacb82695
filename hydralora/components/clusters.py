"""A dataset's rows in components."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.components.choose_k import Choice
from hydralora.components.dbscan import Density
from hydralora.components.describe import Component, describe, renamed
from hydralora.components.features import Encoder, Features, Vectors, dense, sample_rows
from hydralora.components.kmeans import Partition, nearest
from hydralora.components.scripts import script_note, script_shares
from hydralora.projection import Method, project

ClusterMethod = Literal["kmeans", "dbscan"]
SILHOUETTE_ROWS = 2000  # at most; all pairwise distances are computed


class Clusters:
    """A dataset's rows in k components.

    Attributes:
        k: number of components.
        labels: component of each row, (rows,); -1 is DBSCAN's noise.
        vectors: the rows' features, (rows, dims).
        sse: [(k, sum of squared distances to the nearest centre)] for every k tried; none for DBSCAN.
        choice: how k was chosen and how sure it is; None if k was given, and for DBSCAN.
        density: DBSCAN's eps, min_samples and cores; None for k-means.
        features: "tfidf-svd", "tfidf", or "vectors" if the caller passed an encoder.
        encoder: the function texts -> (rows, dims) that computed the vectors.
        names: of the components, where they are given and not found.
    """

    def __init__(
        self,
        texts: Sequence[str],
        encoder: Encoder,
        vectors: Vectors,
        tried: Sequence[Partition],
        k: int,
        features: Features | Literal["vectors"],
        seed: int = 0,
        language: str | None = None,
        choice: Choice | None = None,
        density: Density | None = None,
        partition: Partition | None = None,
    ) -> None:
        self._texts = texts
        self.encoder = encoder
        self._tried = tried
        self._seed = seed
        self._language = language
        self.vectors = vectors
        self.sse = [(partition.k, partition.sse) for partition in tried]
        self.features = features
        self.k = k
        self.choice = choice
        self.density = density
        self._clustering = density or partition or tried[k - 1]
        self.labels: np.ndarray = self._clustering.labels
        self.names: tuple[str, ...] | None = None

    def relabelled(self, labels: np.ndarray, names: Sequence[str] | None = None) -> "Clusters":
        """The same rows with other labels of as many components, (rows,); `names` are theirs, if they have any."""
        other = copy(self)
        other.labels, other.names = labels, tuple(names) if names else None
        for computed in ("components", "distances", "silhouette"):
            other.__dict__.pop(computed, None)
        return other

    @property
    def method(self) -> ClusterMethod:
        return "dbscan" if self.density else "kmeans"

    @property
    def sizes(self) -> list[int]:
        """Rows of each component; noise is in none."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.k).tolist()

    @property
    def noise(self) -> int:
        """Rows that belong to no component."""
        return int((self.labels < 0).sum())

    def assign(self, texts: Sequence[str]) -> list[int]:
        """The nearest component of each new text: by its centres, or by its nearest core row for DBSCAN."""
        return self._clustering.assign(self.encoder(texts)).tolist() if len(texts) else []

    def map(self, method: Method = "pca", seed: int = 0, rows: Sequence[int] | None = None) -> np.ndarray:
        """A 2-D map of the rows with these indices, of all by default: (rows, 2)."""
        return project(dense(self.vectors if rows is None else self.vectors[rows]), method, 2, seed)

    def measure(self) -> None:
        """Compute now what is otherwise computed when it is first read: components, distances, silhouette, scripts."""
        for name in ("components", "silhouette", "scripts"):  # the distances are among what components need
            getattr(self, name)

    @cached_property
    def silhouette(self) -> list[tuple[int, float]]:
        """[(k, mean silhouette, -1 to 1)] for every k tried from 2 on, over at most 2,000 rows.

        The score is 0 if all rows are in one component, or each in its own.
        """
        from sklearn.metrics import pairwise_distances, silhouette_score

        rows = sample_rows(len(self.labels), SILHOUETTE_ROWS, self._seed)
        with threadpool_limits(1):
            distances = pairwise_distances(self.vectors[rows])  # (rows, rows)

        def score(labels: np.ndarray) -> float:
            if not 2 <= len(np.unique(labels)) < len(labels):
                return 0.0
            with threadpool_limits(1):
                return float(silhouette_score(distances, labels, metric="precomputed"))

        return [(partition.k, score(partition.labels[rows])) for partition in self._tried if partition.k >= 2]

    @cached_property
    def scripts(self) -> dict[str, float]:
        """The share of each script that the rows are written in, 0 to 1, the largest first."""
        return script_shares(self._texts)

    @property
    def note(self) -> str:
        """A sentence on what the components may follow beside the tasks, "" where nothing is known."""
        return script_note(self.scripts) if self.k > 1 else ""

    @cached_property
    def components(self) -> list[Component]:
        """A description of each component, by id."""
        return renamed(describe(self._texts, self.labels, self.distances, self._seed, self._language), self.names)

    @cached_property
    def distances(self) -> np.ndarray:
        """Euclidean distance of each row to its component's centre, of noise to the nearest centre: (rows,)."""
        closest, distances = nearest(self.vectors, self._centres)
        for i in range(self.k):
            away = np.flatnonzero((self.labels == i) & (closest != i))  # a dense component may enclose another's centre
            if len(away):
                distances[away] = nearest(self.vectors[away], self._centres[i : i + 1])[1]
        return distances

    @cached_property
    def _centres(self) -> np.ndarray:
        if isinstance(self._clustering, Partition) and self._clustering.cluster_of is None:
            return self._clustering.centres
        return np.stack([np.asarray(self.vectors[self.labels == i].mean(0)).ravel() for i in range(self.k)])
