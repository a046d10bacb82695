"""How far matrices are separated by their run or head: a measure for the paper's breakdown (section 3.1)."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.analysis.matrices import Matrix, cosines, gram

PERMUTATIONS = 200
INTERVAL = (2.5, 97.5)  # percent
LEAST_WAYS = 100  # of permuting the labels; with fewer, a permutation often equals the labels by chance
ROUNDING = 1e-12  # of a silhouette, so that relabelled but equal partitions don't differ


@dataclass(frozen=True)
class Separation:
    """How far the matrices of one shape are separated by their labels.

    Attributes:
        shape: (rows, columns) of the matrices.
        labels: number of labels; a module has one matrix of each.
        modules: number of modules.
        silhouette: mean over the matrices, -1 to 1; 0 if matrices of one label are no closer than others.
        dealt: the same with labels permuted within each module, once per permutation.
        cosines: by module, the mean over its matrices with different labels; all-zero modules are left out.
    """

    shape: tuple[int, int]
    labels: int
    modules: int
    silhouette: float
    dealt: tuple[float, ...]
    cosines: dict[str, float]

    @property
    def chance(self) -> tuple[float, float]:
        """The 95 % interval of the silhouette with permuted labels."""
        low, high = np.percentile(self.dealt, INTERVAL)
        return float(low), float(high)

    @property
    def cosine(self) -> float | None:
        """Mean over the modules; None if all matrices are zero."""
        return float(np.mean(list(self.cosines.values()))) if self.cosines else None

    @property
    def ways(self) -> int:
        """Number of distinct permutations of the labels, up to their names."""
        return math.factorial(self.labels) ** (self.modules - 1)

    @property
    def apart(self) -> bool | None:
        """Whether they are further apart than by chance; None if there are too few modules."""
        return apart([self])


def separation(
    members: Sequence[Matrix], labels: Sequence[Hashable], times: int = PERMUTATIONS, seed: int = 0
) -> list[Separation]:
    """The separation for each shape, the largest group first; shapes with a single label are left out.

    Distances are between the matrices themselves, not between points of a projection.
    """
    rng = np.random.default_rng(seed)  # one generator for all shapes, each permuted separately
    out = []
    for shape in sorted({member.shape for member in members}):
        indices = [i for i, member in enumerate(members) if member.shape == shape]
        measured = _of_one_shape([members[i] for i in indices], [labels[i] for i in indices], times, rng)
        if measured:
            out.append(measured)
    return sorted(out, key=lambda result: -result.modules)


def apart(found: Sequence[Separation]) -> bool | None:
    """Whether matrices of several shapes are further apart by their labels than by chance.

    All shapes are tested together by the mean silhouette of all matrices, since one of several tests may be positive
    by chance. None if there are too few modules.
    """
    if math.prod(result.ways for result in found) < LEAST_WAYS:
        return None
    weights = [result.labels * result.modules for result in found]
    silhouette = np.average([result.silhouette for result in found], weights=weights)
    dealt = np.average([result.dealt for result in found], axis=0, weights=weights)
    return bool(silhouette > np.percentile(dealt, INTERVAL[1]) + ROUNDING)


def _of_one_shape(
    members: Sequence[Matrix], labels: Sequence[Hashable], times: int, rng: np.random.Generator
) -> Separation | None:
    from sklearn.metrics import silhouette_score

    codes = np.unique(np.array([str(label) for label in labels]), return_inverse=True)[1]
    places = np.unique(np.array([member.module for member in members]), return_inverse=True)[1]
    if not 2 <= len(set(codes.tolist())) < len(members):
        return None
    inner = gram(members)
    squares = np.diag(inner)
    distances = np.sqrt((squares[:, None] + squares - 2 * inner).clip(0))
    np.fill_diagonal(distances, 0)
    with threadpool_limits(1):
        silhouette = float(silhouette_score(distances, codes, metric="precomputed"))
        dealt = [silhouette_score(distances, _dealt(codes, places, rng), metric="precomputed") for _ in range(times)]
    return Separation(
        members[0].shape,
        len(set(codes.tolist())),
        len(set(places.tolist())),
        silhouette,
        tuple(map(float, dealt)),
        _cosines_by_module(inner, [member.module for member in members], codes),
    )


def _cosines_by_module(inner: np.ndarray, modules: Sequence[str], codes: np.ndarray) -> dict[str, float]:
    values = np.array(cosines(inner), dtype=float)  # NaN for a zero matrix
    out = {}
    for module in dict.fromkeys(modules):
        indices = np.flatnonzero([name == module for name in modules])
        pairs = values[np.ix_(indices, indices)][codes[indices, None] != codes[indices]]
        known = pairs[~np.isnan(pairs)]
        if len(known):
            out[module] = float(known.mean())
    return out


def _dealt(codes: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels permuted within each module."""
    out = codes.copy()
    for place in np.unique(places):
        indices = np.flatnonzero(places == place)
        out[indices] = codes[rng.permutation(indices)]
    return out
