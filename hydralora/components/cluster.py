"""From texts to components: features, a clustering, and the number of components if it is not given."""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from hydralora.components.choose_k import VOTES, choose_number
from hydralora.components.clusters import ClusterMethod, Clusters
from hydralora.components.dbscan import dbscan
from hydralora.components.features import Encoder, Features, fit_features
from hydralora.components.kmeans import partitions
from hydralora.data.progress import OnProgress
from hydralora.errors import ConfigError, DatasetError

MAX_K = 20


def cluster(
    texts: Sequence[str],
    k: int | None = None,
    features: Features | Encoder = "tfidf-svd",
    seed: int = 0,
    max_k: int = MAX_K,
    on_progress: OnProgress | None = None,
    *,
    method: ClusterMethod = "kmeans",
    language: str | None = None,
    eps: float | None = None,
    min_samples: int | None = None,
) -> Clusters:
    """Components by k-means, or by DBSCAN.

    k = None takes the number of kinds where small groups of rows clearly fall into kinds by their vocabularies; else
    the elbow of the SSE over k = 1 to max_k (paper, section 3.2), or 1 if the components are of one kind. An exception
    in on_progress stops the clustering.

    Args:
        texts: one a row.
        features: "tfidf-svd"; "tfidf", the paper's plain one; or a function texts -> (rows, dims), such as a base
            model's hidden states.
        method: "dbscan" finds its own number of components, by eps and min_samples.
        language: "en" leaves out English stop words.
        eps: DBSCAN's neighbour distance, 0 to 2; None takes the knee of the k-distances.
        min_samples: rows within eps that make a core, 10 by default.

    Raises:
        ConfigError: k below 1, or more than the number of different texts; an unknown method, feature or language;
            vectors that can't be used.
        DatasetError: no rows, no text holds a token, or DBSCAN finds nothing but noise.
    """
    _check(texts, k, max_k, method, eps, min_samples)
    highest = min(max(max_k, k or 1), len(set(texts)))
    steps = {"kmeans": 1 + highest + (0 if k else VOTES), "dbscan": 2}[method]
    progress = _Steps(steps, on_progress)
    encoder, vectors = fit_features(texts, features, seed, language)
    progress()
    named = "vectors" if callable(features) else features
    if method == "dbscan":
        density = dbscan(vectors, seed, eps, min_samples)
        progress.reach(steps)
        count = int(density.core_labels.max()) + 1
        return Clusters(texts, encoder, vectors, [], count, named, seed, language, density=density)
    tried = partitions(vectors, highest, seed, progress)
    _check_k(k, len(tried) if len(tried) < highest else len(set(texts)))
    progress.reach(1 + highest)  # fewer k's where there are fewer different vectors
    choice, chosen = (None, tried[k - 1]) if k else choose_number(texts, vectors, tried, seed, progress)
    progress.reach(steps)
    return Clusters(texts, encoder, vectors, tried, chosen.k, named, seed, language, choice, partition=chosen)


def one_component(texts: Sequence[str]) -> Clusters:
    """All rows in one component, for texts that can't be distinguished.

    Raises:
        DatasetError: there are no rows.
    """
    _check(texts, 1, 1, "kmeans", None, None)

    vectors = _all_alike(texts)
    return Clusters(texts, _all_alike, vectors, partitions(vectors, 1, 0), 1, "tfidf")


def _all_alike(texts: Sequence[str]) -> np.ndarray:
    return np.zeros((len(texts), 1))


class _Steps:
    """Counts steps and reports them."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self.done, self.total, self._on_progress = 0, total, on_progress

    def __call__(self) -> None:
        self.reach(self.done + 1)

    def reach(self, done: int) -> None:
        """Report this number of steps as done, unless it was reported already."""
        if done > self.done:
            self.done = done
            if self._on_progress:
                self._on_progress(done, self.total)


def _check(
    texts: Sequence[str], k: int | None, max_k: int, method: str, eps: float | None, min_samples: int | None
) -> None:
    if not len(texts):
        raise DatasetError("There are no rows to cluster. Choose a dataset with at least one.")
    for row, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DatasetError(f"Row {row} is {type(text).__name__}, not text. Give every row a text, or drop the row.")
    if method not in get_args(ClusterMethod):
        raise ConfigError(f"The method is {method!r}. Choose one of {', '.join(get_args(ClusterMethod))}.")
    if max_k < 1:
        raise ConfigError(f"max_k is {max_k}. Choose 1 or more.")
    if method == "dbscan" and k is not None:
        raise ConfigError(f"k is {k}, but DBSCAN finds the number itself. Leave k out, or use kmeans.")
    if method == "kmeans" and (eps is not None or min_samples is not None):
        raise ConfigError("eps and min_samples belong to DBSCAN. Leave them out, or use dbscan.")
    _check_k(k, len(set(texts)))


def _check_k(k: int | None, different: int) -> None:
    if k is not None and not 1 <= k <= different:
        raise ConfigError(f"k is {k}, but there are {different} different texts. Choose k from 1 to {different}.")
