"""A and the heads of a trained adapter as vectors: projected to points, and compared with each other."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from hydralora.errors import ModelError
from hydralora.projection import Method, effective_method, project
from hydralora.tuner.model import block_index, head_matrices, hydra_layers


@dataclass(frozen=True)
class Matrix:
    """One A or one head, flattened. `shape` is (r, width): an A has its layer's input width, a head its output's.

    `head` is None for an A that all heads share.
    """

    run: str
    module: str
    layer: int | None
    kind: Literal["A", "head"]
    head: int | None
    shape: tuple[int, int]
    vector: np.ndarray


def matrices(model: Any, run: str = "") -> list[Matrix]:
    """Every A and every head of the active HydraLoRA adapter, in the model's order.

    Raises:
        ModelError: the model has no HydraLoRA layer.
    """
    out: list[Matrix] = []
    for module, layer in hydra_layers(model).items():
        a, heads = head_matrices(layer)  # (1 or N, r, in), (N, out, r)
        number = block_index(module)
        out.extend(_matrix(run, module, number, "A", None if len(a) == 1 else i, one) for i, one in enumerate(a))
        out.extend(_matrix(run, module, number, "head", i, head.T) for i, head in enumerate(heads))
    if not out:
        raise ModelError(f"{run or 'The model'}: it has no HydraLoRA heads. Choose a run with method hydralora.")
    return out


def project_matrices(found: list[Matrix], method: Method = "pca", dims: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """A group of points per matrix shape: {shape, method, seed, points: [{run, module, layer, kind, head, x, y}]}.

    Matrices of unlike shape have no distances to each other, so each shape is projected on its own. A group of fewer
    than 5 points is always projected by PCA, and says so in `method`.
    """
    groups = []
    for shape in sorted({matrix.shape for matrix in found}):
        members = [matrix for matrix in found if matrix.shape == shape]
        points = project(np.stack([matrix.vector for matrix in members]), method, dims, seed)
        rows = []
        for matrix, point in zip(members, points, strict=True):
            row = {key: value for key, value in asdict(matrix).items() if key not in ("vector", "shape")}
            rows.append(row | dict(zip("xyz", map(float, point), strict=False)))
        used = effective_method(method, len(members))
        groups.append({"shape": list(shape), "method": used, "seed": seed, "points": rows})
    return groups


def head_similarity(model: Any) -> dict[str, float | None]:
    """Mean cosine between the heads of each adapted module; None where a head is still zero or there is only one."""
    return {module: _mean_cosine(head_matrices(layer)[1].flatten(1)) for module, layer in hydra_layers(model).items()}


def _matrix(run: str, module: str, layer: int | None, kind: Any, head: int | None, value: torch.Tensor) -> Matrix:
    rows, width = value.shape
    return Matrix(run, module, layer, kind, head, (rows, width), value.float().cpu().numpy().ravel())


def _mean_cosine(heads: torch.Tensor) -> float | None:
    """Mean over the pairs of rows of (N, numbers)."""
    count = len(heads)
    norms = heads.float().norm(dim=1)
    if count < 2 or bool((norms == 0).any()):
        return None
    unit = heads.float() / norms[:, None]
    return float(((unit @ unit.T).sum() - count) / (count * (count - 1)))
