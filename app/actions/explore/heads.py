"""The Heads view of Explore: every head of a run in numbers, layer by layer."""

from dataclasses import dataclass

from hydralora import figures
from hydralora.analysis import HeadMeasures, head_measures, read_weights
from hydralora.runs.snapshots import saved_snapshots

from ...services import Services
from ...services.cache import ResultKind
from ..adapters import adapter_hash, adapter_weights, why_no_adapter
from ..reading import Cell

READING: dict[figures.Measure, str] = {
    "similarity": "1: the heads point the same way, so the gates choose between nearly equal heads; 0: they have "
    "nothing in common; -1: they cancel each other. It compares directions of weights, not their effect on text.",
    "norm": "The size of a head's weights. A head that is hardly used stays small. It does not show what a head does.",
    "effective_rank": "The number of directions that a head uses, from 1 to r. If it is low, a smaller r may do.",
    "moved": "How far a head has moved from its start, in the unit of its norm. For heads that start at zero both are "
    "equal.",
}
MEASURED = ResultKind[list[HeadMeasures]]("heads")
COLUMNS = ["module", "layer", "head", *figures.MEASURES.values()]


@dataclass(frozen=True)
class HeadsView:
    sentence: str
    figure: str = ""
    rows: list[list[Cell]] | None = None


def view(services: Services, run_id: str | None, measure: figures.Measure) -> HeadsView:
    """One measure of all heads, and all of them as a table.

    Raises:
        HydraError: the adapter can't be read.
    """
    if why := why_no_adapter(services, run_id):
        return HeadsView(why)
    assert run_id
    measured = _measured(services, run_id)
    known = [value for row in measured if (value := getattr(row, measure)) is not None]
    if not known:
        none = {
            "moved": "This run saved no snapshot of its start, so its heads' distance from it is not known. Set "
            "training.snapshots before training.",
            "similarity": "Each module has one head, or all heads are zero: there is nothing to compare.",
        }
        return HeadsView(none.get(measure, "There is nothing to measure."), "", _table(measured))
    spread = f"Mean {sum(known) / len(known):.3g}, from {min(known):.3g} to {max(known):.3g}."
    return HeadsView(f"{READING[measure]} {spread}", figures.head_measures(measured, measure), _table(measured))


def _table(rows: list[HeadMeasures]) -> list[list[Cell]]:
    return [
        [row.module, row.layer, row.head + 1, *(_rounded(getattr(row, measure)) for measure in figures.MEASURES)]
        for row in rows
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _measured(services: Services, run_id: str) -> list[HeadMeasures]:
    run = services.run(run_id)

    def compute() -> list[HeadMeasures]:
        first = saved_snapshots(run.snapshots).get(0)
        start = read_weights(run.snapshots, first) if first else None
        return head_measures(adapter_weights(services, run_id), start)

    return services.cache.remember(MEASURED, run_id, adapter_hash(services, run_id), compute=compute)
