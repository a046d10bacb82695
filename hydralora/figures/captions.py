"""How matrices, or rows, were projected to points: what a picture is called, and how it is read."""

from collections.abc import Sequence
from typing import Any

from hydralora.figures.base import METHOD_NAMES
from hydralora.projection import MIN_POINTS, Method

METHOD_READING: dict[Method, str] = {
    "pca": "PCA's axes are the directions in which they differ most. Along each, which is stretched to fill the "
    "picture, distances are true, those between far groups too. What lies in other directions is not drawn: the less "
    "of the variance is, the more points that lie together here may be far apart.",
    "tsne": "t-SNE keeps neighbours together: near points are alike. The axes, the size of a group, and gaps between "
    "far groups mean nothing. It starts from PCA's picture and draws nothing at random, so it has no seed.",
    "umap": "UMAP keeps neighbours together: near points are alike. The axes, the size of a group, and gaps between "
    "far groups mean nothing; what is not there with another seed is an accident.",
}
COSINES_READING = (
    f"Of fewer than {MIN_POINTS} matrices, which have no neighbourhoods, the cosines are shown: 1, they point the same "
    "way; 0, they have nothing in common; -1, they cancel each other. How large they are it does not show."
)
UNLIKE_SHAPES = "Matrices of unlike shape can't be compared, so each shape has a picture of its own."


def how_drawn(group: dict[str, Any]) -> str:
    """How a group of `project_matrices` was projected, with all that it depends on: its method, neighbours, seed."""
    method, name = group["method"], METHOD_NAMES[group["method"]]
    if method == "pca":
        return name if group["explained"] is None else f"{name}, {100 * group['explained']:.0f} % of the variance"
    if method == "tsne":
        return f"{name}, perplexity {group['neighbours']:.3g}, no seed"
    return f"{name}, {group['neighbours']:.0f} neighbours, seed {group['seed']}"


def how_to_read(groups: Sequence[dict[str, Any]]) -> str:
    """How the pictures of these groups are read, and what they can't show; each kind of picture once."""
    methods = dict.fromkeys(group["method"] for group in groups if group["cosines"] is None)
    told = [METHOD_READING[method] for method in methods]
    if told:
        told.insert(0, "Each point is one matrix, by all its numbers.")
    if any(group["cosines"] is not None for group in groups):
        told.append(COSINES_READING)
    return " ".join([*told, UNLIKE_SHAPES])
