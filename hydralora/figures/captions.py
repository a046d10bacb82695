"""Captions of projections of matrices or rows: the method, and how to read the plot."""

from collections.abc import Sequence

from hydralora.analysis.matrices import PointGroup
from hydralora.projection import METHODS, MIN_POINTS

COSINES_READING = (
    f"Of fewer than {MIN_POINTS} matrices, which have no neighbourhoods, the cosines are shown: 1, they point the same "
    "way; 0, they have nothing in common; -1, they cancel each other. Cosines don't show how large they are."
)
UNLIKE_SHAPES = "Matrices of different shapes can't be compared, so each shape has its own plot."


def how_drawn(group: PointGroup) -> str:
    """How a group was projected: its method, neighbours and seed."""
    method = METHODS[group.method]
    parts = [method.name]
    if group.explained is not None:
        parts.append(f"{100 * group.explained:.0f} % of the variance")
    if group.neighbours is not None:
        parts.append(method.neighbours_caption.format(group.neighbours))
        parts.append("no seed" if group.seed is None else f"seed {group.seed}")
    return ", ".join(parts)


def how_to_read(groups: Sequence[PointGroup]) -> str:
    """How to read the plots of these groups, and what they can't show; each kind of plot once."""
    methods = dict.fromkeys(group.method for group in groups if group.cosines is None)
    sentences = [METHODS[method].reading for method in methods]
    if sentences:
        sentences.insert(0, "Each point is one matrix, projected from all its elements.")
    if any(group.cosines is not None for group in groups):
        sentences.append(COSINES_READING)
    return " ".join([*sentences, UNLIKE_SHAPES])
