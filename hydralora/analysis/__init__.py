"""Analysis of A and the heads of a trained adapter: projections, singular values, comparisons."""

from hydralora.analysis.heads import (
    HeadMeasures,
    head_measures,
    head_similarity,
    head_spread,
    product_spectrum,
    spectrum,
)
from hydralora.analysis.matrices import Matrix, MatrixPoint, PointGroup, cosines, gram, matrices, project_matrices
from hydralora.analysis.separation import Separation, apart, separation
from hydralora.analysis.weights import LayerWeights, Weights, model_weights, read_weights

__all__ = [
    "HeadMeasures",
    "LayerWeights",
    "Matrix",
    "MatrixPoint",
    "PointGroup",
    "Separation",
    "Weights",
    "apart",
    "cosines",
    "gram",
    "head_measures",
    "head_similarity",
    "head_spread",
    "matrices",
    "model_weights",
    "product_spectrum",
    "project_matrices",
    "read_weights",
    "separation",
    "spectrum",
]
