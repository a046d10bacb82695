"""Matrices as points: A, heads, and their products, by all their elements."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from hydralora.analysis.weights import LayerWeights, Weights
from hydralora.errors import ModelError
from hydralora.projection import METHODS, MIN_POINTS, Method, effective_method, project, used_neighbours
from hydralora.tuner.model import block_index

Kind = Literal["A", "head", "product"]
COLUMNS_AT_ONCE = 16_384  # of numbers in double precision, so that long vectors need little memory


@dataclass(frozen=True, eq=False)
class Matrix:
    """One A, one head, or their product, which a head adds to its layer.

    Attributes:
        head: None for an A that all heads share.
        step: that of its snapshot; None for the adapter itself.
        shape: (r, width) of an A or a head: an A has its layer's input width, a head its output's; (out, in) of a
            product.
        left: (out, r) for a product, which is left @ right; None for the others, which are `right` alone.
        right: (r, width).
    """

    run: str
    module: str
    layer: int | None
    kind: Kind
    head: int | None
    step: int | None
    shape: tuple[int, int]
    left: torch.Tensor | None
    right: torch.Tensor

    @property
    def whole(self) -> torch.Tensor:
        """All its elements, in its shape."""
        return self.right if self.left is None else self.left @ self.right

    @property
    def vector(self) -> np.ndarray:
        """All its elements as a vector."""
        return self.whole.numpy().ravel()


@dataclass(frozen=True)
class MatrixPoint:
    """A matrix's position in a projection, with `Matrix`'s fields that identify it; `z` only in three dimensions."""

    run: str
    module: str
    layer: int | None
    kind: Kind
    head: int | None
    step: int | None
    x: float
    y: float
    z: float | None = None

    def describe(self) -> dict[str, str | int | float | None]:
        """As plain values; `step` only for snapshots."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None or name not in ("step", "z")}


@dataclass(frozen=True)
class PointGroup:
    """The matrices of one shape as points.

    Attributes:
        shape: (rows, columns) of the matrices.
        method: that of the projection; always PCA for fewer than 5 matrices.
        seed, neighbours: None if the method doesn't use them: PCA has neither, t-SNE no seed.
        explained: the share of the variance in PCA's plot; None if all matrices are equal.
        cosines: (points, points) for fewer than 5 matrices, which they show better; otherwise None.
    """

    shape: tuple[int, int]
    method: Method
    seed: int | None
    neighbours: float | None
    explained: float | None
    points: list[MatrixPoint]
    cosines: list[list[float | None]] | None

    @property
    def name(self) -> str:
        """Its shape, for display."""
        return f"{self.shape[0]} x {self.shape[1]}"

    def describe(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self) | {"shape": list(self.shape), "points": [point.describe() for point in self.points]}


def matrices(weights: Weights, run: str = "", step: int | None = None, products: bool = False) -> list[Matrix]:
    """Every A and every head of an adapter, in the model's order; with `products`, their products instead.

    Raises:
        ModelError: there are none.
    """
    members = [
        Matrix(run, module, block_index(module), kind, head, step, shape, left, right)
        for module, layer in weights.items()
        for kind, head, shape, left, right in (_products(layer) if products else _parts(layer))
    ]
    if not members:
        raise ModelError(f"{run or 'The model'}: it has no HydraLoRA heads. Choose a run with heads.")
    return members


_Named = tuple[Kind, int | None, tuple[int, int], torch.Tensor | None, torch.Tensor]


def _parts(layer: LayerWeights) -> Iterator[_Named]:
    for i, a in enumerate(layer.a):
        yield "A", None if len(layer.a) == 1 else i, (a.shape[0], a.shape[1]), None, a
    for i, head in enumerate(layer.heads):
        yield "head", i, (head.shape[1], head.shape[0]), None, head.T


def _products(layer: LayerWeights) -> Iterator[_Named]:
    for i, head in enumerate(layer.heads):
        a = layer.a_of(i)
        yield "product", i, (len(head), a.shape[1]), layer.scaling * head, a


def gram(members: Sequence[Matrix]) -> np.ndarray:
    """Inner products (n, n) of matrices of one shape, in double precision.

    Those of products B A come from their factors, <B A, B' A'> = sum((B^T B') * (A A'^T)): no product is formed.
    """
    with threadpool_limits(1):
        if members[0].left is not None:
            return _gram_of_products(members)
        rows = torch.stack([member.right.flatten() for member in members])
        out = np.zeros((len(members), len(members)))
        for columns in rows.split(COLUMNS_AT_ONCE, dim=1):
            part = columns.double().numpy()
            out += part @ part.T
        return out


def _gram_of_products(members: Sequence[Matrix]) -> np.ndarray:
    left = np.concatenate(
        [member.left.T.double().numpy() for member in members if member.left is not None]
    )  # (nr, out)
    right = np.concatenate([member.right.double().numpy() for member in members])  # (n r, in)
    ranks = np.cumsum([0] + [len(member.right) for member in members])
    out = np.empty((len(members), len(members)))
    for i, (first, last) in enumerate(pairwise(ranks)):
        both = (left[first:last] @ left.T) * (right[first:last] @ right.T)  # (r, n r)
        out[i] = np.add.reduceat(both.sum(0), ranks[:-1])
    return (out + out.T) / 2


def coordinates(inner: np.ndarray) -> np.ndarray:
    """Points (n, up to n) with the distances given by the inner products: classical scaling, exact.

    A projection of them equals one of the matrices themselves, however large these are. Their axes are the principal
    components.
    """
    centre = np.eye(len(inner)) - 1 / len(inner)
    values, vectors = np.linalg.eigh(centre @ inner @ centre)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    nonzero = values > max(values[0], 0) * len(inner) * np.finfo(float).eps
    return vectors[:, nonzero] * np.sqrt(values[nonzero]) if nonzero.any() else np.zeros((len(inner), 1))


def cosines(inner: np.ndarray) -> list[list[float | None]]:
    """From inner products to cosines; None for a matrix of zeros."""
    norms = np.sqrt(np.diag(inner).clip(0))
    known = np.outer(norms > 0, norms > 0)
    values = np.divide(inner, np.outer(norms, norms), out=np.zeros_like(inner), where=known).clip(-1, 1)
    return [[float(v) if k else None for v, k in zip(*row, strict=True)] for row in zip(values, known, strict=True)]


def project_matrices(
    found: Sequence[Matrix], method: Method = "pca", dims: int = 2, seed: int = 0, neighbours: int | None = None
) -> list[PointGroup]:
    """A group of points for each shape: matrices of different shapes have no distances to each other.

    Raises:
        ConfigError: as `hydralora.projection.project`.
    """
    groups = []
    for shape in sorted({matrix.shape for matrix in found}):
        members = [matrix for matrix in found if matrix.shape == shape]
        inner = gram(members)
        places = coordinates(inner)
        points = project(places, method, dims, seed, neighbours)
        used = effective_method(method, len(members))
        groups.append(
            PointGroup(
                shape=shape,
                method=used,
                seed=seed if METHODS[used].is_seeded else None,
                neighbours=used_neighbours(method, len(members), neighbours) or None,
                explained=_explained(points, places) if used == "pca" else None,
                points=[_placed(member, point.tolist()) for member, point in zip(members, points, strict=True)],
                cosines=cosines(inner) if len(members) < MIN_POINTS else None,
            )
        )
    return groups


def _placed(matrix: Matrix, point: Sequence[float]) -> MatrixPoint:
    x, y, *z = point
    of = matrix.run, matrix.module, matrix.layer, matrix.kind, matrix.head, matrix.step
    return MatrixPoint(*of, x, y, z[0] if z else None)


def _explained(points: np.ndarray, places: np.ndarray) -> float | None:
    """The share of the variance of `places` that `points` has."""
    variance = places.var(0).sum()
    return float(points.var(0).sum() / variance) if variance > 0 else None
