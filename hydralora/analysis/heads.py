"""Measures of an adapter's heads: similarity, norm, effective rank, and distance from the start."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from hydralora.analysis.weights import LayerWeights, Weights
from hydralora.tuner.model import block_index


@dataclass(frozen=True)
class Spectrum:
    """A matrix by its singular values, largest first.

    Attributes:
        norm: Frobenius norm.
        effective_rank: exp of the entropy of the singular values' shares, 1 to r (Roy and Vetterli, 2007); 0 for zeros.
    """

    norm: float
    singular_values: list[float]
    effective_rank: float


def spectrum(matrix: torch.Tensor) -> Spectrum:
    """The spectrum of (r, width) or (out, r) with a small r, from the (r, r) inner products in double precision."""
    small = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
    return _spectrum(torch.linalg.eigvalsh(small @ small.T).clamp_min(0).sqrt().flip(0))


def product_spectrum(left: torch.Tensor, right: torch.Tensor) -> Spectrum:
    """The spectrum of left @ right, (out, r) and (r, in), without forming the product."""
    r_left, r_right = (torch.linalg.qr(part.double(), mode="r").R for part in (left, right.T))
    return _spectrum(torch.linalg.svdvals(r_left @ r_right.T))


def _spectrum(values: torch.Tensor) -> Spectrum:
    total = float(values.sum())
    rank = math.exp(float(torch.special.entr(values / total).sum())) if total else 0.0
    return Spectrum(float(values.square().sum().sqrt()), values.tolist(), rank)


def head_cosines(layer: LayerWeights) -> list[list[float | None]]:
    """Cosine of each pair of a layer's heads, (N, N); None for a zero head."""
    flat = layer.heads.flatten(1).double()
    norms = flat.norm(dim=1)
    values = ((flat @ flat.T) / (norms[:, None] * norms)).clamp(-1, 1)
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]


def head_similarity(weights: Weights) -> dict[str, float | None]:
    """Mean cosine between the heads of each adapted module; None if a head is still zero or there is only one."""
    return {module: _mean_off_diagonal(head_cosines(layer)) for module, layer in weights.items()}


def _mean_off_diagonal(values: list[list[float | None]]) -> float | None:
    cosines = [value for i, row in enumerate(values) for j, value in enumerate(row) if i != j]
    return None if not cosines or None in cosines else float(np.mean([value for value in cosines if value is not None]))


def distance(now: torch.Tensor, before: torch.Tensor) -> float:
    """Frobenius norm of a matrix's change."""
    return float((now - before).double().norm())


@dataclass(frozen=True)
class HeadMeasures:
    """Measures of a head.

    Attributes:
        similarity: mean cosine to the module's other heads; None if one is zero, or there is no other.
        moved: distance from the start, as a Frobenius norm; None if the start isn't known.
    """

    module: str
    layer: int | None
    head: int
    similarity: float | None
    norm: float
    effective_rank: float
    moved: float | None


def head_measures(weights: Weights, start: Weights | None = None) -> list[HeadMeasures]:
    """Measures of each head.

    Args:
        start: the same adapter before its first step.
    """
    rows = []
    for module, layer in weights.items():
        cosines = head_cosines(layer)
        for i, head in enumerate(layer.heads):
            others = [value for j, value in enumerate(cosines[i]) if j != i]
            known = [value for value in others if value is not None]
            similarity = sum(known) / len(known) if known and len(known) == len(others) else None
            moved = distance(head, start[module].heads[i]) if start else None
            measured = spectrum(head)
            rows.append(
                HeadMeasures(module, block_index(module), i, similarity, measured.norm, measured.effective_rank, moved)
            )
    return rows


def head_spread(weights: Weights) -> list[float]:
    """Each head's distance from the mean of its module's heads, as a Frobenius norm, mean over the modules: (N,).

    Zero for all while the heads are one point.
    """
    apart = [
        [distance(head, centre) for head in layer.heads]
        for layer in weights.values()
        for centre in (layer.heads.mean(0),)
    ]
    return [float(value) for value in np.mean(apart, axis=0)]
