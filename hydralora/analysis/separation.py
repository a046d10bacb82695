"""Do matrices lie apart by the run, or the head, that they are of? The paper's breakdown, measured (section 3.1)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.analysis.matrices import Matrix, cosines, gram

PERMUTATIONS = 200
INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Separation:
    """How far the matrices of one shape part by their labels.

    Attributes:
        shape: (rows, columns) of the matrices.
        modules: in how many modules the labels meet.
        silhouette: mean over the matrices, -1 to 1; 0 where those of one label are no nearer than others.
        chance: the interval of 95 % of the same number with the labels dealt out anew within each module.
        cosine: mean of matrices of one module with unlike labels; None where there are none that are not zero.
    """

    shape: tuple[int, int]
    modules: int
    silhouette: float
    chance: tuple[float, float]
    cosine: float | None

    @property
    def apart(self) -> bool:
        """Whether they lie further apart than chance would have them."""
        return self.silhouette > self.chance[1]


def separation(
    members: Sequence[Matrix], labels: Sequence[Hashable], times: int = PERMUTATIONS, seed: int = 0
) -> list[Separation]:
    """For each shape of the matrices, by the largest group first; shapes with one label alone are left out.

    Distances are between all numbers of two matrices, not between points of a projection.
    """
    out = []
    for shape in sorted({member.shape for member in members}):
        own = [i for i, member in enumerate(members) if member.shape == shape]
        found = _of_one_shape([members[i] for i in own], [labels[i] for i in own], times, seed)
        if found:
            out.append(found)
    return sorted(out, key=lambda one: -one.modules)


def _of_one_shape(members: Sequence[Matrix], labels: Sequence[Hashable], times: int, seed: int) -> Separation | None:
    from sklearn.metrics import silhouette_score

    codes = np.unique(np.array([str(label) for label in labels]), return_inverse=True)[1]
    places = np.unique(np.array([member.module for member in members]), return_inverse=True)[1]
    if not 2 <= len(set(codes.tolist())) < len(members):
        return None
    inner = gram(members)
    squares = np.diag(inner)
    distances = np.sqrt((squares[:, None] + squares - 2 * inner).clip(0))
    np.fill_diagonal(distances, 0)
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):
        found = float(silhouette_score(distances, codes, metric="precomputed"))
        dealt = [silhouette_score(distances, _dealt(codes, places, rng), metric="precomputed") for _ in range(times)]
    low, high = np.percentile(dealt, INTERVAL)
    pairs = (places[:, None] == places) & (codes[:, None] != codes)
    known = [
        value
        for row, wanted in zip(cosines(inner), pairs, strict=True)
        for value, w in zip(row, wanted, strict=True)
        if w and value is not None
    ]
    return Separation(
        members[0].shape,
        len(set(places.tolist())),
        found,
        (float(low), float(high)),
        float(np.mean(known)) if known else None,
    )


def _dealt(codes: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels that changed places within each module."""
    out = codes.copy()
    for place in np.unique(places):
        own = np.flatnonzero(places == place)
        out[own] = codes[rng.permutation(own)]
    return out
