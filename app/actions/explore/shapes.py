"""Groups of matrices by shape: which are drawn, and how."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydralora import figures
from hydralora.analysis import PointGroup

PANELS = 3  # shapes drawn at once; if there are more, a person chooses


@dataclass(frozen=True)
class ShapesView:
    """The figures of the shapes that are drawn.

    Attributes:
        caption: how to read them; `left_out` says what is not drawn.
        shapes: the names of all shapes; `drawn`: those of the drawn ones.
    """

    figures: list[str]
    caption: str
    left_out: str
    shapes: list[str]
    drawn: list[str]


def chosen_groups(groups: Sequence[PointGroup], shapes: Sequence[str]) -> list[PointGroup]:
    """The groups to draw: those of the chosen shapes, else the first ones."""
    chosen = [group for group in groups if group.name in shapes]
    return (chosen or list(groups))[:PANELS]


def draw_shapes(groups: Sequence[PointGroup], shapes: Sequence[str], colour_by: figures.MatrixColour) -> ShapesView:
    """A figure for each chosen group; points are numbered across the figures, so that an id is unique."""
    chosen = chosen_groups(groups, shapes)
    drawn, first = [], 0
    for group in chosen:
        drawn.append(figures.group_figure(group, colour_by, first))
        first += len(group.points)
    names = [group.name for group in chosen]
    left_out = [group.name for group in groups if group.name not in names]
    note = f"Not drawn: {', '.join(left_out)}. Choose up to {PANELS} under Shapes." if left_out else ""
    return ShapesView(drawn, figures.how_to_read(chosen), note, [group.name for group in groups], names)
