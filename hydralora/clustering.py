"""Components of a dataset: text features, k-means, and the elbow that sets the number of heads.

The clustering sets how many heads there are, and may start the router; it never assigns a row to a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.errors import ConfigError, DatasetError
from hydralora.projection import Method, project

Features = Literal["tfidf-svd", "tfidf"]
MAX_K = 20
SVD_DIMS = 50
TERMS = 8
NEAREST = 5
SILHOUETTE_ROWS = 2000  # at most; the distances of every row to every other are computed
NO_SPREAD = 1e-9  # SSE per row below which every different row has a centre of its own


@dataclass(frozen=True)
class Component:
    """One cluster: its rows (indices), the terms that set it apart, and the rows nearest to its centre."""

    id: int
    name: str
    size: int
    terms: list[str]
    nearest: list[int]


class Clusters:
    """A dataset's rows in k components.

    Attributes:
        k: number of components.
        labels: component of each row, (rows,).
        sse: [(k, sum of squared distances to the nearest centre)] for every k tried.
    """

    def __init__(
        self,
        texts: Sequence[str],
        pipeline: Any,
        vectors: np.ndarray,
        runs: dict[int, Any],
        k: int | None,
        features: Features,
        seed: int = 0,
    ) -> None:
        self._texts = texts
        self._pipeline = pipeline
        self._runs = runs  # a fitted KMeans for every k tried
        self._seed = seed
        self.vectors = vectors
        self.sse = [(count, float(run.inertia_)) for count, run in runs.items()]
        self.features = features
        self.k: int = k or elbow(self.sse)
        self._kmeans = runs[self.k]
        self.labels: np.ndarray = self._kmeans.labels_

    def assign(self, texts: Sequence[str]) -> list[int]:
        """The nearest component of each new text."""
        with threadpool_limits(1):
            return self._kmeans.predict(self._pipeline.transform(texts)).tolist()

    def map(self, method: Method = "pca", seed: int = 0, rows: Sequence[int] | None = None) -> np.ndarray:
        """A 2-D map of the rows with these indices, of all by default: (rows, 2)."""
        return project(_dense(self.vectors if rows is None else self.vectors[rows]), method, 2, seed)

    @property
    def sizes(self) -> list[int]:
        return np.bincount(self.labels, minlength=self.k).tolist()

    @cached_property
    def silhouette(self) -> list[tuple[int, float]]:
        """[(k, mean silhouette, -1 to 1)] for every k tried from 2 on, over at most 2,000 rows.

        Rows of one component alone, or each in a component of its own, score 0.
        """
        from sklearn.metrics import pairwise_distances, silhouette_score

        rows = np.random.default_rng(self._seed).permutation(len(self.labels))[:SILHOUETTE_ROWS]
        with threadpool_limits(1):
            distances = pairwise_distances(self.vectors[rows])  # (rows, rows)

        def score(labels: np.ndarray) -> float:
            if not 2 <= len(np.unique(labels)) < len(labels):
                return 0.0
            return float(silhouette_score(distances, labels, metric="precomputed"))

        return [(k, score(run.labels_[rows])) for k, run in self._runs.items() if k >= 2]

    @cached_property
    def components(self) -> list[Component]:
        tfidf = self._pipeline[0]
        weights = tfidf.transform(self._texts)
        names = tfidf.get_feature_names_out()
        overall = np.asarray(weights.mean(0)).ravel()
        distances = self._kmeans.transform(self.vectors)  # (rows, k)
        out = []
        for i in range(self.k):
            members = np.flatnonzero(self.labels == i)
            lift = np.asarray(weights[members].mean(0)).ravel() - overall
            terms = [str(names[j]) for j in np.argsort(-lift)[:TERMS] if lift[j] > 0]
            nearest = members[np.argsort(distances[members, i])[:NEAREST]].tolist()
            out.append(Component(i, ", ".join(terms[:3]) or f"component {i + 1}", len(members), terms, nearest))
        return out


def cluster(
    texts: Sequence[str],
    k: int | None = None,
    features: Features = "tfidf-svd",
    seed: int = 0,
    max_k: int = MAX_K,
    on_progress: Callable[[int, int], None] | None = None,
) -> Clusters:
    """k-means on text features; k = None takes the elbow of the SSE over k = 1 to max_k (paper, section 3.2).

    Features "tfidf" are the paper's plain TF-IDF; "tfidf-svd", the default, reduces and normalises them, which gives
    the SSE curve a visible elbow.

    Raises:
        ConfigError: k below 1, or more than the number of different texts; unknown features.
        DatasetError: no text holds a word.
    """
    if features not in get_args(Features):
        raise ConfigError(f"Text features are {features!r}. Choose one of {', '.join(get_args(Features))}.")
    _check_k(k, len(set(texts)))
    from sklearn.cluster import KMeans

    pipeline, vectors = _fit_features(texts, features, seed)
    highest = min(max(max_k, k or 1), len(set(texts)))
    runs: dict[int, Any] = {}
    with threadpool_limits(1):
        for count in range(1, highest + 1):
            runs[count] = KMeans(count, n_init=4, random_state=seed).fit(vectors)
            if on_progress:
                on_progress(count, highest)
            if runs[count].inertia_ <= NO_SPREAD * len(texts):
                _check_k(k, count)  # texts of the same words are the same point
                break
    return Clusters(texts, pipeline, vectors, runs, k, features, seed)


def one_component(texts: Sequence[str]) -> Clusters:
    """Every row in one component, for texts that words can't tell apart."""
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(analyzer="char"))
    vectors = pipeline.fit_transform(texts)
    with threadpool_limits(1):
        runs = {1: KMeans(1, n_init=1, random_state=0).fit(vectors)}
    return Clusters(texts, pipeline, vectors, runs, 1, "tfidf")


def _check_k(k: int | None, different: int) -> None:
    if k is not None and not 1 <= k <= different:
        raise ConfigError(f"k is {k}, but there are {different} different texts. Choose k from 1 to {different}.")


def elbow(sse: Sequence[tuple[int, float]]) -> int:
    """The k at the knee of a falling SSE curve (Kneedle); 1 where the curve has none."""
    if len(sse) < 3:
        return len(sse)
    from kneed import KneeLocator

    ks, values = zip(*sse, strict=True)
    if values[0] <= 0:
        return 1
    knee = KneeLocator(ks, values, curve="convex", direction="decreasing").knee
    return int(knee) if knee else 1


def _fit_features(texts: Sequence[str], features: Features, seed: int) -> tuple[Any, np.ndarray]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    tfidf = TfidfVectorizer(sublinear_tf=True)
    try:
        plain = tfidf.fit_transform(texts)
    except ValueError as error:
        raise DatasetError(
            f"None of the {len(texts)} texts holds a word of two letters or more, so they can't be clustered. "
            "To train on them, set tuner.num_heads together with tuner.router_init=random."
        ) from error
    if features == "tfidf":
        return make_pipeline(tfidf), plain
    dims = min(SVD_DIMS, plain.shape[1], plain.shape[0])
    pipeline = make_pipeline(tfidf, TruncatedSVD(dims, random_state=seed), Normalizer())
    with threadpool_limits(1), np.errstate(all="ignore"):  # SVD divides by the variance, which like rows don't have
        return pipeline, pipeline.fit_transform(texts)


def _dense(vectors: Any) -> np.ndarray:
    if isinstance(vectors, np.ndarray):
        return vectors
    from sklearn.decomposition import TruncatedSVD

    with np.errstate(all="ignore"):
        return TruncatedSVD(min(SVD_DIMS, *vectors.shape), random_state=0).fit_transform(vectors)
