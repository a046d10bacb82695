"""The Points view of Explore: A's and heads of one or several runs as points, and the matrix behind a point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hydralora import figures
from hydralora.analysis import (
    Matrix,
    MatrixPoint,
    PointGroup,
    Weights,
    cosines,
    gram,
    matrices,
    product_spectrum,
    project_matrices,
    read_weights,
    spectrum,
)
from hydralora.projection import METHODS, Method
from hydralora.runs.snapshots import saved_snapshots

from ...services import Services
from ...services.background import seconds_of
from ...services.cache import ResultKind
from ..adapters import adapter_hash, adapter_weights, why_no_adapter
from ..reading import Cell
from .shapes import chosen_groups, draw_shapes

COLUMNS = ["run", "matrix", "layer", "kind", "head", "x", "y", "z"]
STEPS_SHOWN = 5
STILL = "The heads of each module lie on one another: they have not moved apart yet. "
SIBLINGS = 12  # heads whose cosines fit into the figure's squares
Shown = Literal["heads", "parts", "products"]
POINTS = ResultKind[list[PointGroup]]("points")
SNAPSHOT = ResultKind[Weights]("snapshot", keep=8, of_adapter=True)


@dataclass(frozen=True)
class PointsRequest:
    """What is drawn.

    Attributes:
        runs: those whose matrices are drawn.
        shown: which of their matrices: heads alone, A and heads ("parts"), or the products of both.
        steps: also draw snapshots from training.
        shapes: the names of the shapes to draw if there are more than `PANELS`.
    """

    runs: tuple[str, ...]
    shown: Shown = "heads"
    method: Method = "pca"
    dims: int = 2
    neighbours: int | None = None
    seed: int = 0
    steps: bool = False
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PointsView:
    """What the page shows; figures None leaves the current ones.

    Attributes:
        shapes: the names of all shapes; `drawn`: those of the drawn ones.
        help: how to read them; "" leaves the current explanation.
    """

    sentence: str
    figures: list[str] | None
    shapes: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    help: str = ""


@dataclass(frozen=True)
class MatrixView:
    """One matrix: a sentence, its singular values, its cosines with the module's other heads ("" if it has none).

    Attributes:
        head: its run, module and head; None for an A, and for a module with one head only.
    """

    sentence: str
    spectrum: str = ""
    siblings: str = ""
    head: tuple[str, str, int] | None = None


def view(services: Services, request: PointsRequest, colour_by: figures.MatrixColour) -> Iterator[PointsView]:
    """The points; if they take longer, PCA's first, then the time taken so far.

    Raises:
        HydraError: an adapter can't be read, or a setting is out of its range.
    """
    if why := why_no_adapter(services, request.runs[0] if request.runs else None):
        yield PointsView(why, [])
        return
    request = _drawable(services, request)
    method = METHODS[request.method]
    if (request.steps or not method.is_quick) and not services.cache.has(POINTS, *_key(services, request)):
        quick = PointsRequest(request.runs, request.shown, "pca", request.dims, shapes=request.shapes)
        first = _view(services, quick, colour_by)
        drawn = first.figures
        for seconds in seconds_of(lambda: _groups(services, request)):
            sentence = f"{method.name} is being computed ({seconds:.0f} s); meanwhile this is PCA."
            yield PointsView(sentence, drawn, first.shapes, first.drawn, first.help)
            drawn = None
    yield _view(services, request, colour_by)


def rows(services: Services, request: PointsRequest, ids: Sequence[int]) -> list[list[Cell]]:
    """The table rows of selected points, as `COLUMNS`."""
    if not request.runs or why_no_adapter(services, request.runs[0]):
        return []
    points = _points(services, _drawable(services, request))
    return [_row(points[i]) for i in ids if 0 <= i < len(points)]


def look_into(services: Services, request: PointsRequest, place: int) -> MatrixView:
    """The matrix behind a point."""
    request = _drawable(services, request)
    points = _points(services, request)
    if not 0 <= place < len(points):
        return MatrixView("")
    point = points[place]
    members = _members(services, point.run, point.step, request.shown)
    matrix = next(
        member
        for member in members
        if (member.module, member.kind, member.head) == (point.module, point.kind, point.head)
    )
    measured = spectrum(matrix.right) if matrix.left is None else product_spectrum(matrix.left, matrix.right)
    family = [member for member in members if member.module == matrix.module and member.kind == matrix.kind]
    name = figures.describe_matrix(point, point.run if len(request.runs) > 1 else "")
    several = len(family) > 1
    is_head = several and matrix.head is not None and matrix.kind != "A"
    return MatrixView(
        f"{name}: {matrix.shape[0]} x {matrix.shape[1]}, Frobenius norm {measured.norm:.4g}, effective rank "
        f"{measured.effective_rank:.2f} of {len(measured.singular_values)}.",
        figures.singular_values(measured.singular_values, measured.effective_rank, name),
        _siblings(family) if several else "",
        (matrix.run, matrix.module, matrix.head or 0) if is_head else None,
    )


def _row(point: MatrixPoint) -> list[Cell]:
    places = (point.x, point.y, point.z)
    return [
        point.run,
        figures.describe_matrix(point),
        point.layer,
        point.kind,
        "" if point.head is None else point.head + 1,
        *("" if place is None else round(place, 3) for place in places),
    ]


def _steps(services: Services, run_id: str) -> list[int | None]:
    """A few of the steps at which a run saved snapshots, and None for the adapter itself."""
    run = services.run(run_id)
    state, steps = run.state(), list(saved_snapshots(run.snapshots))
    if steps and state.state == "finished" and steps[-1] == state.step:  # else the adapter is of another step
        del steps[-1]
    every = max(1, -(-len(steps) // (STEPS_SHOWN - 1)))
    return [*steps[::every], None]


def _members(services: Services, run_id: str, step: int | None, shown: Shown) -> list[Matrix]:
    weights = adapter_weights(services, run_id) if step is None else _snapshot(services, run_id, step)
    members = matrices(weights, run_id, step, products=shown == "products")
    return [member for member in members if shown != "heads" or member.kind == "head"]


def _snapshot(services: Services, run_id: str, step: int) -> Weights:
    folder = services.run(run_id).snapshots
    return services.cache.remember(
        SNAPSHOT, run_id, step, compute=lambda: read_weights(folder, saved_snapshots(folder)[step])
    )


def _siblings(family: Sequence[Matrix]) -> str:
    names = [matrix.kind if matrix.head is None else f"head {matrix.head + 1}" for matrix in family[:SIBLINGS]]
    return figures.cosine_matrix(names, cosines(gram(family[:SIBLINGS])), f"Cosines in {family[0].module}")


def _view(services: Services, request: PointsRequest, colour_by: figures.MatrixColour) -> PointsView:
    groups = _groups(services, request)
    shapes = draw_shapes(groups, request.shapes, colour_by)
    said = "" if any(map(_parted, groups)) else STILL
    return PointsView(said + shapes.left_out, shapes.figures, shapes.shapes, shapes.drawn, shapes.caption)


def _parted(group: PointGroup) -> bool:
    """Whether some module's heads are not all at one place."""
    places: dict[tuple[str, str, int | None], set[tuple[float, ...]]] = {}
    for point in group.points:
        if point.kind != "A":
            place = tuple(round(value, 9) for value in (point.x, point.y, point.z or 0.0))
            places.setdefault((point.run, point.module, point.step), set()).add(place)
    return any(len(found) > 1 for found in places.values())


def _drawable(services: Services, request: PointsRequest) -> PointsRequest:
    """The request, limited to runs with an adapter that can be drawn."""
    runs = tuple(run_id for run_id in dict.fromkeys(request.runs) if not why_no_adapter(services, run_id))
    return replace(request, runs=runs)


def _points(services: Services, request: PointsRequest) -> list[MatrixPoint]:
    """The points of the drawn shapes, in the order of the figures' ids."""
    groups = chosen_groups(_groups(services, request), request.shapes)
    return [point for group in groups for point in group.points]


def _key(services: Services, request: PointsRequest) -> tuple[PointsRequest, tuple[str | None, ...]]:
    return replace(request, shapes=()), tuple(adapter_hash(services, run_id) for run_id in request.runs)


def _groups(services: Services, request: PointsRequest) -> list[PointGroup]:
    def compute() -> list[PointGroup]:
        members = [
            matrix
            for run_id in request.runs
            for step in (_steps(services, run_id) if request.steps else [None])
            for matrix in _members(services, run_id, step, request.shown)
        ]
        return project_matrices(members, request.method, request.dims, request.seed, request.neighbours)

    return services.cache.remember(POINTS, *_key(services, request), compute=compute)
