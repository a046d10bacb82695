"""Do matrices lie apart by the run, or the head, that they are of? The paper's breakdown, measured (section 3.1)."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.analysis.matrices import Matrix, cosines, gram

PERMUTATIONS = 200
INTERVAL = (2.5, 97.5)  # percent
LEAST_WAYS = 100  # to deal labels out; of fewer, chance often finds the very one that parts the matrices
ROUNDING = 1e-12  # of a silhouette: the same labels by other names must not lie further apart


@dataclass(frozen=True)
class Separation:
    """How far the matrices of one shape part by their labels.

    Attributes:
        shape: (rows, columns) of the matrices.
        labels: how many there are; a module has one matrix of each.
        modules: in how many modules the labels meet.
        silhouette: mean over the matrices, -1 to 1; 0 where those of one label are no nearer than others.
        dealt: the same number with the labels dealt out anew within each module, once for every time.
        cosines: by module, the mean of its matrices with unlike labels; without modules where all of them are zero.
    """

    shape: tuple[int, int]
    labels: int
    modules: int
    silhouette: float
    dealt: tuple[float, ...]
    cosines: dict[str, float]

    @property
    def chance(self) -> tuple[float, float]:
        """The interval of 95 % of what labels that were dealt out give."""
        low, high = np.percentile(self.dealt, INTERVAL)
        return float(low), float(high)

    @property
    def cosine(self) -> float | None:
        """Mean over the modules; None where there are none that are not zero."""
        return float(np.mean(list(self.cosines.values()))) if self.cosines else None

    @property
    def ways(self) -> int:
        """In how many ways, that are not the same by other names, the labels can be dealt out."""
        return math.factorial(self.labels) ** (self.modules - 1)

    @property
    def apart(self) -> bool | None:
        """Whether they lie further apart than chance would have them; None where so few modules can't tell."""
        return apart([self])


def separation(
    members: Sequence[Matrix], labels: Sequence[Hashable], times: int = PERMUTATIONS, seed: int = 0
) -> list[Separation]:
    """For each shape of the matrices, by the largest group first; shapes with one label alone are left out.

    Distances are between all numbers of two matrices, not between points of a projection.
    """
    rng = np.random.default_rng(seed)  # one for all shapes, which are dealt out each on its own
    out = []
    for shape in sorted({member.shape for member in members}):
        indices = [i for i, member in enumerate(members) if member.shape == shape]
        measured = _of_one_shape([members[i] for i in indices], [labels[i] for i in indices], times, rng)
        if measured:
            out.append(measured)
    return sorted(out, key=lambda result: -result.modules)


def apart(found: Sequence[Separation]) -> bool | None:
    """Whether matrices of several shapes lie further apart by their labels than chance would have them.

    One test of all shapes together, by the mean silhouette of all matrices: of a test for each, one or another would
    find something by chance. None where there are too few modules to tell.
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
    values = np.array(cosines(inner), dtype=float)  # not a number for a matrix of zeros
    out = {}
    for module in dict.fromkeys(modules):
        indices = np.flatnonzero([name == module for name in modules])
        pairs = values[np.ix_(indices, indices)][codes[indices, None] != codes[indices]]
        known = pairs[~np.isnan(pairs)]
        if len(known):
            out[module] = float(known.mean())
    return out


def _dealt(codes: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels that changed places within each module."""
    out = codes.copy()
    for place in np.unique(places):
        indices = np.flatnonzero(places == place)
        out[indices] = codes[rng.permutation(indices)]
    return out
