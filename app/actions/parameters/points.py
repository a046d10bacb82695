"""The Points view of Parameters: A's and heads of a run, or of several, as points; one of them looked into."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydralora import figures
from hydralora.analysis import (
    Matrix,
    Weights,
    cosines,
    gram,
    matrices,
    product_spectrum,
    project_matrices,
    read_weights,
    spectrum,
)
from hydralora.projection import Method
from hydralora.runs.snapshots import saved_snapshots

from ...services import Services
from ...services.background import Done, in_background
from ...services.processes import EVERY

COLUMNS = ["run", "matrix", "layer", "kind", "head", "x", "y", "z"]
PANELS = 3  # shapes that are drawn at once; of more a person chooses
AT_ONCE = {"pca"}  # what takes less than a second
TOLD = 5  # looks between two tellings of how long it has taken
STEPS_SHOWN = 5
SIBLINGS = 12  # heads whose cosines are written into their squares


@dataclass(frozen=True)
class Wanted:
    """What is drawn: runs, each A and head or their products, with `steps` as they were while they learnt, and how they
    are projected; `shapes` are those that are drawn, by name, where there are more than `PANELS`."""

    runs: tuple[str, ...]
    products: bool = False
    method: Method = "pca"
    dims: int = 2
    neighbours: int | None = None
    seed: int = 0
    steps: bool = False
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PointsView:
    """What the page shows; figures None leaves those that are there.

    Attributes:
        shapes: the names of all shapes; `drawn` of those that are drawn.
    """

    sentence: str
    figures: list[str] | None
    shapes: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MatrixView:
    """One matrix: a sentence, its singular values, its cosines with the module's other heads ("" where it has none).

    Attributes:
        head: the run, module and head that it is of; None for an A, and where there is one head alone.
    """

    sentence: str
    spectrum: str = ""
    siblings: str = ""
    head: tuple[str, str, int] | None = None


def missing(services: Services, run_id: str | None) -> str:
    """Why there is nothing to draw of a run, and what to do; "" where there is something."""
    if not run_id:
        return "No run is chosen. Train one first; its A and heads are then drawn here."
    if not services.run(run_id).has_adapter:
        return "This run has saved no adapter yet. Its A and heads are drawn when training ends."
    return ""


def view(services: Services, wanted: Wanted, colour_by: figures.MatrixColour) -> Iterator[PointsView]:
    """The points; where they take longer, PCA's first, then how long they have been computed.

    Raises:
        HydraError: an adapter can't be read, or a setting is out of its range.
    """
    if why := missing(services, wanted.runs[0] if wanted.runs else None):
        yield PointsView(why, [])
        return
    wanted = _drawable(services, wanted)
    if (wanted.steps or wanted.method not in AT_ONCE) and not services.remembers(_key(services, wanted)):
        quick = Wanted(wanted.runs, wanted.products, "pca", wanted.dims, shapes=wanted.shapes)
        first = _view(services, quick, colour_by)
        name, drawn = figures.METHOD_NAMES[wanted.method], first.figures
        for ticks, step in enumerate(in_background(lambda on_progress: _groups(services, wanted))):
            if not isinstance(step, Done) and ticks % TOLD == 0:
                told = f"{name} is being computed ({ticks * EVERY:.0f} s); meanwhile this is PCA."
                yield PointsView(told, drawn, first.shapes, first.drawn)
                drawn = None
    yield _view(services, wanted, colour_by)


def rows(services: Services, wanted: Wanted, ids: Sequence[int]) -> list[list[Any]]:
    """The table rows of selected points."""
    if not wanted.runs or missing(services, wanted.runs[0]):
        return []
    points = _points(services, _drawable(services, wanted))
    return [
        [
            point["run"],
            figures.describe_matrix(point),
            point["layer"],
            point["kind"],
            "" if point["head"] is None else point["head"] + 1,
            *(round(point[axis], 3) if axis in point else "" for axis in "xyz"),
        ]
        for point in (points[i] for i in ids if 0 <= i < len(points))
    ]


def look_into(services: Services, wanted: Wanted, place: int) -> MatrixView:
    """The matrix behind a point."""
    wanted = _drawable(services, wanted)
    points = _points(services, wanted)
    if not 0 <= place < len(points):
        return MatrixView("")
    point = points[place]
    found = _members(services, point["run"], point.get("step"), wanted.products)
    own = next(one for one in found if one.describe().items() <= point.items())
    measured = spectrum(own.right) if own.left is None else product_spectrum(own.left, own.right)
    family = [one for one in found if one.module == own.module and one.kind == own.kind]
    name = figures.describe_matrix(point, point["run"] if len(wanted.runs) > 1 else "")
    return MatrixView(
        f"{name}: {own.shape[0]} x {own.shape[1]}, Frobenius norm {measured.norm:.4g}, effective rank "
        f"{measured.effective_rank:.2f} of {len(measured.singular_values)}.",
        figures.singular_values(measured.singular_values, measured.effective_rank, name),
        _siblings(family) if len(family) > 1 else "",
        (own.run, own.module, own.head) if own.head is not None and own.kind != "A" and len(family) > 1 else None,
    )


def adapter_weights(services: Services, run_id: str) -> Weights:
    """A's and heads of a run's adapter, read once for all sessions."""
    run = services.run(run_id)
    return services.remember(("weights", run_id, run.state()["adapter_hash"]), lambda: read_weights(run.adapter))


def shape_names(groups: Sequence[dict[str, Any]]) -> list[str]:
    """What a person calls the groups of `project_matrices`."""
    return ["{} x {}".format(*group["shape"]) for group in groups]


def shown(groups: Sequence[dict[str, Any]], shapes: Sequence[str]) -> list[dict[str, Any]]:
    """Those that are drawn: of the chosen shapes, else the first ones."""
    chosen = [group for group, name in zip(groups, shape_names(groups), strict=True) if name in shapes]
    return (chosen or list(groups))[:PANELS]


def draw_groups(groups: Sequence[dict[str, Any]], colour_by: figures.MatrixColour) -> list[str]:
    """A figure for each; their points are counted through, so that an id names one of all."""
    drawn, first = [], 0
    for group in groups:
        drawn.append(figures.group_figure(group, colour_by, first))
        first += len(group["points"])
    return drawn


def left_out(groups: Sequence[dict[str, Any]], drawn: Sequence[dict[str, Any]]) -> str:
    """Which shapes are not drawn, and how to see them; "" where all are."""
    names = [name for name in shape_names(groups) if name not in shape_names(drawn)]
    return f" Not drawn: {', '.join(names)}. Choose up to {PANELS} of all shapes under Shapes." if names else ""


def _steps(services: Services, run_id: str) -> list[int | None]:
    """A few of the steps at which a run kept its matrices, and None for the adapter itself; that one alone without
    any."""
    run = services.run(run_id)
    state, kept = run.state(), list(saved_snapshots(run.snapshots))
    if kept and state["state"] == "finished" and kept[-1] == state["step"]:  # else the adapter is of another step
        del kept[-1]
    every = max(1, -(-len(kept) // (STEPS_SHOWN - 1)))
    return [*kept[::every], None]


def _members(services: Services, run_id: str, step: int | None, products: bool) -> list[Matrix]:
    if step is None:
        return matrices(adapter_weights(services, run_id), run_id, products=products)
    folder = services.run(run_id).snapshots
    weights = services.remember(("snapshot", run_id, step), lambda: read_weights(folder, saved_snapshots(folder)[step]))
    return matrices(weights, run_id, step, products)


def _siblings(family: Sequence[Matrix]) -> str:
    names = [one.kind if one.head is None else f"head {one.head + 1}" for one in family[:SIBLINGS]]
    return figures.cosine_matrix(names, cosines(gram(family[:SIBLINGS])), f"Cosines in {family[0].module}")


def _view(services: Services, wanted: Wanted, colour_by: figures.MatrixColour) -> PointsView:
    groups = _groups(services, wanted)
    chosen = shown(groups, wanted.shapes)
    drawn = draw_groups(chosen, colour_by)
    caption = figures.how_to_read(chosen) + left_out(groups, chosen)
    return PointsView(caption, drawn, shape_names(groups), shape_names(chosen))


def _drawable(services: Services, wanted: Wanted) -> Wanted:
    """Those of the runs that have an adapter."""
    runs = tuple(run_id for run_id in dict.fromkeys(wanted.runs) if services.run(run_id).has_adapter)
    return replace(wanted, runs=runs)


def _points(services: Services, wanted: Wanted) -> list[dict[str, Any]]:
    """Of the shapes that are drawn, in the order of the figures' ids."""
    return [point for group in shown(_groups(services, wanted), wanted.shapes) for point in group["points"]]


def _key(services: Services, wanted: Wanted) -> tuple:
    adapters = tuple(services.run(run_id).state()["adapter_hash"] for run_id in wanted.runs)
    return "points", replace(wanted, shapes=()), adapters


def _groups(services: Services, wanted: Wanted) -> list[dict[str, Any]]:
    def compute() -> list[dict[str, Any]]:
        found = [
            one
            for run_id in wanted.runs
            for step in (_steps(services, run_id) if wanted.steps else [None])
            for one in _members(services, run_id, step, wanted.products)
        ]
        return project_matrices(found, wanted.method, wanted.dims, wanted.seed, wanted.neighbours)

    return services.remember(_key(services, wanted), compute)
