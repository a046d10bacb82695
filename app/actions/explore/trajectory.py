"""The Over training view of Explore: how A and the heads move from snapshot to snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hydralora import figures
from hydralora.analysis import PointGroup, matrices, project_matrices, read_weights
from hydralora.projection import METHODS, Method
from hydralora.runs.events import training_losses
from hydralora.runs.snapshots import saved_snapshots

from ...services import Services
from ...services.background import seconds_of
from ...services.cache import ResultKind
from ..adapters import why_no_adapter

ALL = "all: "  # prefix of a kind of module whose layers are all drawn
PANELS = 2
MODULES = ResultKind[list[str]]("modules")
PLACES = ResultKind[list[PointGroup]]("trajectory")
HOW_TO_READ = (
    "All snapshots of this run share one projection, so positions can be compared from step to step. Press Play, or "
    "move the slider. Heads that start together and stay together have learnt the same, as far as this picture shows."
)


@dataclass(frozen=True)
class TrajectoryView:
    """What the page shows; figures None leaves the current ones, and `help` says how to read them."""

    sentence: str
    figures: list[str] | None
    help: str = ""


def modules(services: Services, run_id: str | None) -> list[tuple[str, str]]:
    """What can be drawn of a run, as choices of (label, value): every module, then each kind of module over all layers;
    none without snapshots."""
    if not run_id:
        return []
    run = services.run(run_id)
    saved = saved_snapshots(run.snapshots)
    if not saved:
        return []
    names = services.cache.remember(
        MODULES, run_id, compute=lambda: list(read_weights(run.snapshots, saved[min(saved)]))
    )
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in names)
    every = [(f"{kind}, all layers", ALL + kind) for kind in kinds]
    return [(label, name) for name, label in figures.module_names(names).items()] + every


def view(services: Services, run_id: str | None, module: str | None, method: Method) -> Iterator[TrajectoryView]:
    """The snapshots of one module, or of one kind of module in every layer, in one projection.

    Raises:
        HydraError: a snapshot can't be read.
    """
    if not run_id:
        yield TrajectoryView("No run is chosen. Train one first to see how its heads diverge.", [])
        return
    run = services.run(run_id)
    steps = tuple(saved_snapshots(run.snapshots))
    if not run.recipe().tuning.has_matrices:
        yield TrajectoryView(why_no_adapter(services, run_id), [])
        return
    if len(steps) < 2 or not module:
        yield TrajectoryView(
            "This run has no snapshots yet. They are saved during training; training.snapshots sets their number.", []
        )
        return
    request = _Request(run_id, steps, module, method)
    if not services.cache.has(PLACES, request):
        for seconds in seconds_of(lambda: _groups(services, request)):
            yield TrajectoryView(f"{len(steps)} snapshots are being projected ({seconds:.0f} s).", None)
    losses = training_losses(services.events(run))
    groups = _groups(services, request)[:PANELS]
    drawn = [figures.trajectory(group, losses) for group in groups]
    yield TrajectoryView("", drawn, f"{HOW_TO_READ} {_methods(groups)}")


def _methods(groups: Sequence[PointGroup]) -> str:
    """How to read the projections of these groups; few points may have fallen back to another method."""
    return " ".join(METHODS[method].reading for method in dict.fromkeys(group.method for group in groups))


@dataclass(frozen=True)
class _Request:
    run_id: str
    steps: tuple[int, ...]
    module: str
    method: Method


def _groups(services: Services, request: _Request) -> list[PointGroup]:
    def compute() -> list[PointGroup]:
        folder = services.run(request.run_id).snapshots
        members = []
        for step, file in saved_snapshots(folder).items():
            weights = {
                name: layer
                for name, layer in read_weights(folder, file).items()
                if name == request.module or ALL + name.rpartition(".")[2] == request.module
            }
            members += matrices(weights, request.run_id, step)
        return project_matrices(members, request.method)

    return services.cache.remember(PLACES, request, compute=compute)
