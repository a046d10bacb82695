"""The list of all runs, with the damaged ones."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from hydralora.errors import HydraError, RunError
from hydralora.experiments.studies import study_of
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.runs.comparison import RunSummary, summary
from hydralora.runs.phases import run_progress
from hydralora.runs.run import Label, Run
from hydralora.runs.state import RunState

from ...services import Services
from ..reading import Cell
from ..recipes import model_name
from ..run_choices import dot

DAMAGED = "damaged"


@dataclass(frozen=True)
class ListedRun:
    """A line of the list.

    Attributes:
        name: for people.
        dot: "active", "finished", "failed" or "" (stopped or interrupted).
        fraction: how far it has come, 0 to 1; None where it does not run.
        curve: a few of its losses, in order.
        cells: a value for each column.
        study: the study that it belongs to; None for a run of its own.
    """

    id: str
    name: str
    dot: str
    state: str
    fraction: float | None
    curve: list[float]
    cells: list[Cell]
    study: str | None


@dataclass(frozen=True)
class Listing:
    """All runs, newest first: a line for each, and the fix for each damaged run, by its id."""

    rows: list[ListedRun]
    damaged: dict[str, str]


@dataclass(frozen=True)
class _Row:
    """A run for the list; a damaged one has only its label."""

    run: Run
    label: Label
    summary: RunSummary | None = None


@dataclass(frozen=True)
class Column:
    """A column of the list: its header, what it holds, a run's cell, and whether it is shown at first."""

    name: str
    kind: Literal["str", "number"]
    cell: Callable[[_Row], Cell]
    shown: bool = False


def _known(cell: Callable[[RunSummary], Cell], unknown: Cell = None) -> Callable[[_Row], Cell]:
    """A cell from a run's summary, which a damaged run lacks."""
    return lambda row: cell(row.summary) if row.summary else unknown


COLUMNS = (
    Column("method", "str", _known(lambda summary: METHOD_NAMES[summary.method], ""), shown=True),
    Column("N", "number", _known(lambda summary: summary.heads), shown=True),
    Column("dataset", "str", _known(lambda summary: summary.dataset, ""), shown=True),
    Column("exact match, %", "number", _known(lambda summary: _rounded(summary.exact_match, 1, 100)), shown=True),
    Column("held-out loss", "number", _known(lambda summary: _rounded(summary.loss, 4))),
    Column("rank", "number", _known(lambda summary: summary.rank)),
    Column("parameters", "number", _known(lambda summary: summary.parameters)),
    Column("base model", "str", _known(lambda summary: model_name(summary.model), "")),
    Column("training, s", "number", _known(lambda summary: _rounded(summary.seconds, 0))),
    Column("energy, Wh", "number", _known(lambda summary: _rounded(summary.energy_kwh, 2, 1000))),
    Column("tags", "str", lambda row: ", ".join(row.label.tags)),
    Column("id", "str", lambda row: row.run.id),
)


def listing(services: Services) -> Listing:
    """All runs, including unreadable ones: people must see them to repair them."""
    rows, damaged = {}, {}

    def list_damaged(run: Run, error: HydraError) -> None:
        damaged[run.id] = damage(services, run, error)
        rows[run.id] = _listed(_Row(run, run.label()), "failed", DAMAGED, None, [])

    for run, why in services.store.damaged().items():
        list_damaged(run, RunError(why))
    for run, state in services.jobs.states().items():
        try:
            recipe = run.recipe()
            row = _Row(run, run.label(), summary(run, state, recipe))
            fraction = run_progress(state, recipe, state.heartbeat).fraction if state.is_active else None
            rows[run.id] = _listed(row, dot(state.state), _told(state), fraction, services.curves.of(run))
        except HydraError as error:
            list_damaged(run, error)
    services.curves.save(set(rows))
    return Listing([rows[run_id] for run_id in sorted(rows, reverse=True)], damaged)


def _listed(row: _Row, dot: str, state: str, fraction: float | None, curve: list[float]) -> ListedRun:
    cells = [column.cell(row) for column in COLUMNS]
    study = study_of(row.label)
    return ListedRun(row.run.id, row.label.name or row.run.id, dot, state, fraction, curve, cells, study)


def _told(state: RunState) -> str:
    """The state, with the steps done where it has not finished."""
    steps = "" if state.state == "finished" or not state.max_steps else f", step {state.step} of {state.max_steps}"
    return f"{state.state}{steps}"


def list_value(view: Listing, chosen: str | None) -> dict[str, object]:
    """The value of the page's list (widgets/run_list.py)."""
    columns = [{"name": column.name, "kind": column.kind, "shown": column.shown} for column in COLUMNS]
    return {"columns": columns, "runs": [asdict(row) for row in view.rows], "chosen": chosen or ""}


def damage(services: Services, run: Run, error: HydraError) -> str:
    """Why a run can't be read, and what can be done, without folders of this machine."""
    message = str(error)
    if not isinstance(error, RunError):  # its recipe
        message = f"Run {run.id}: {message} Repair that file, or delete the folder {run.folder}."
    return message.replace(f"{services.store.workspace}{os.sep}", "")


def _rounded(value: float | None, digits: int, times: float = 1) -> float | None:
    return None if value is None else round(value * times, digits)
