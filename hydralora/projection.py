"""Projections of vectors to two or three dimensions for a plot: PCA, t-SNE or UMAP, seeded."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.errors import ConfigError

Method = Literal["pca", "tsne", "umap"]
PCA_FIRST = 50  # dimensions; t-SNE and UMAP on raw weight vectors of thousands of numbers take minutes
TSNE_STEPS = {2: 1000, 3: 500}  # a step in three dimensions takes more than twice as long
MIN_POINTS = 5  # fewer points have no neighbourhoods to show


def project(
    vectors: np.ndarray, method: Method = "pca", dims: int = 2, seed: int = 0, neighbours: int | None = None
) -> np.ndarray:
    """(points, features) -> (points, dims).

    t-SNE and UMAP get the first principal components; below 5 points they fall back to PCA. One thread only: beside
    a training run two threads take many times longer than one.

    Args:
        seed: UMAP's. t-SNE starts from the principal components and draws nothing at random.
        neighbours: number of neighbours, capped by the number of points (`used_neighbours`).

    Raises:
        ConfigError: an unknown method, dims other than 2 and 3, or fewer than 2 neighbours.
    """
    if method not in METHODS:
        raise ConfigError(f"Projection method is {method!r}. Choose one of {', '.join(METHODS)}.")
    if dims not in (2, 3):
        raise ConfigError(f"A projection to {dims} dimensions can't be drawn. Choose 2 or 3.")
    if neighbours is not None and neighbours < 2:
        raise ConfigError(f"A projection by {neighbours} neighbours shows nothing. Choose 2 or more.")
    if len(vectors) == 0:
        return np.zeros((0, dims))
    with threadpool_limits(1):
        draw = METHODS[effective_method(method, len(vectors))].draw
        reduced = _pca(vectors, PCA_FIRST if draw else dims, seed)
        if draw is None:
            return _widened(reduced, dims)
        return draw(reduced, dims, seed, used_neighbours(method, len(vectors), neighbours))


def effective_method(method: Method, points: int) -> Method:
    """The method that `project` uses for this number of points."""
    return "pca" if points < MIN_POINTS else method


def used_neighbours(method: Method, points: int, neighbours: int | None = None) -> float:
    """The number of neighbours that `project` uses: t-SNE's perplexity, UMAP's n_neighbors; 0 for PCA.

    The default is 30 for t-SNE and 15 for UMAP, fewer if there are few points.
    """
    how = METHODS[effective_method(method, points)]
    return min(neighbours or how.neighbours, how.most_neighbours(points)) if how.neighbours else 0


def _pca(vectors: np.ndarray, dims: int, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    vectors = np.asarray(vectors, dtype=np.float64)
    dims = min(dims, *vectors.shape)
    if not np.ptp(vectors, axis=0).any():  # all points are the same: PCA would divide by a variance of zero
        return np.zeros((len(vectors), dims))
    return PCA(dims, random_state=seed).fit_transform(vectors)


def _widened(points: np.ndarray, dims: int) -> np.ndarray:
    """Cut or fill with zero columns to `dims`."""
    out = np.zeros((len(points), dims))
    width = min(dims, points.shape[1])
    out[:, :width] = points[:, :width]
    return out


def _tsne(vectors: np.ndarray, dims: int, seed: int, neighbours: float) -> np.ndarray:
    from sklearn.manifold import TSNE

    # The start has a standard deviation of .0001, as scikit-learn scales its own.
    start, steps = _start(vectors, dims, 1e-4), TSNE_STEPS[dims]
    method = TSNE(dims, perplexity=float(neighbours), init=start, max_iter=steps, random_state=seed)
    return method.fit_transform(vectors)


def _umap(vectors: np.ndarray, dims: int, seed: int, neighbours: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap warns that a seed means one thread, which is intended here
        from umap import UMAP

        return UMAP(int(neighbours), dims, init=_start(vectors, dims, 1.0), random_state=seed).fit_transform(vectors)


def _start(vectors: np.ndarray, dims: int, deviation: float) -> np.ndarray | str:
    """The first principal components, which preserve the global structure (Kobak and Linderman, 2021).

    Random if all points are equal.
    """
    first = _widened(vectors, dims)
    spread = first[:, 0].std()
    return (first * (deviation / spread)).astype(np.float32) if spread > 0 else "random"


@dataclass(frozen=True)
class ProjectionMethod:
    """A projection method and its properties.

    Attributes:
        name: the name to display.
        reading: how to read its plot, and what the plot can't show.
        draw: from principal components (points, up to 50), dims, seed and neighbours to (points, dims); None: the first
            components themselves.
        neighbours: default number of neighbours; 0 if it has none.
        neighbours_name: the library's name of that number; `neighbours_caption`: its text under a plot.
        most_neighbours: the largest number for a number of points.
        is_seeded: whether the result depends on the seed.
        is_quick: whether a few hundred points take less than a second.
        rows: the most rows of a dataset to draw; larger datasets are sampled evenly.
    """

    name: str
    reading: str
    draw: Callable[[np.ndarray, int, int, float], np.ndarray] | None = None
    neighbours: int = 0
    neighbours_name: str = ""
    neighbours_caption: str = ""
    most_neighbours: Callable[[int], float] = lambda points: points - 1
    is_seeded: bool = False
    is_quick: bool = False
    rows: int = 20_000


METHODS: dict[Method, ProjectionMethod] = {
    "pca": ProjectionMethod(
        "PCA",
        "PCA's axes are the directions of largest variance, each stretched to fill the plot. Distances along them are "
        "exact, also between distant groups. Other directions are not drawn: the smaller the share of the variance, "
        "the further apart points may be that look close.",
        is_quick=True,
    ),
    "tsne": ProjectionMethod(
        "t-SNE",
        "t-SNE preserves neighbourhoods: points that are close are similar. The axes, the size of a group, and "
        "gaps between far groups mean nothing. It starts from PCA and uses no random numbers, so it has no seed.",
        _tsne,
        neighbours=30,
        neighbours_name="perplexity",
        neighbours_caption="perplexity {:.3g}",
        most_neighbours=lambda points: (points - 1) / 3,
        rows=5_000,
    ),
    "umap": ProjectionMethod(
        "UMAP",
        "UMAP preserves neighbourhoods: points that are close are similar. The axes, the size of a group, and "
        "gaps between far groups mean nothing. Structure that another seed doesn't show is an artefact.",
        _umap,
        neighbours=15,
        neighbours_name="n_neighbors",
        neighbours_caption="{:.0f} neighbours",
        is_seeded=True,
    ),
}
