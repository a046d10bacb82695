"""Who answers: the columns of a conversation, and the names of a run's heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from hydralora.errors import HydraError
from hydralora.inference.generation import gated_modules
from hydralora.inference.model_cache import LoadedModel
from hydralora.inference.traces import answered_by
from hydralora.models.adapters import read_adapter_config
from hydralora.tuner.steering import Steering

from ...services import Services
from ..recipes import model_name, resolve_model
from .answers import COLUMNS

LEAD = 0.05  # above 1/N, from which on a head is said to lead, or to have taken a component


@dataclass(frozen=True)
class Column:
    """The model that answers: a run's, steered or not, or without a run the base model.

    Attributes:
        loaded: None if it can't answer; `problem` then says why.
    """

    key: str
    loaded: LoadedModel | None
    steering: Steering | None = None
    problem: str = ""

    @property
    def title(self) -> str:
        """Who answers, with the adapter's hash and the steering."""
        if self.loaded is None:
            return COLUMNS[self.key]
        run = self.loaded.run
        gated = bool(gated_modules(self.loaded.model))
        whose = answered_by(run.id if run else None, self.loaded.adapter_hash, gated, self.steering)
        return whose if run else f"{model_name(self.loaded.files.id)}, {whose}"


class Heads(TypedDict):
    """The heads of a run for the mixer: their number, and the component that each has taken, "" for none."""

    run: str
    heads: int
    names: list[str]


def heads_of(services: Services, run_id: str | None) -> Heads:
    """A run's heads; none if it has no adapter with heads."""
    run = services.run(run_id) if run_id else None
    if not run or not run.has_adapter or not run.recipe().has_heads:
        return {"run": run.id if run else "", "heads": 0, "names": []}
    count = getattr(read_adapter_config(run.adapter), "num_heads", 0)
    results = run.state().results
    by_head = [row for row in (results.component_by_head or [])] if results else []
    names = [component.name for component in results.components] if results else []
    return {"run": run.id, "heads": count, "names": [_component(by_head, names, head) for head in range(count)]}


def leading_head(gates: Sequence[float]) -> int | None:
    """The head with the largest gate; None in a tie, where no head leads."""
    top = max(gates, default=0.0)
    return gates.index(top) if gates and top >= 1 / len(gates) + LEAD else None


def _component(by_head: Sequence[Sequence[float]], names: Sequence[str], head: int) -> str:
    """The component whose rows give a head the largest gate, if it is larger than a tie."""
    # The row of a component without held-out rows is empty.
    measured = [(row[head], len(row), name) for row, name in zip(by_head, names, strict=False) if len(row) > head]
    gate, heads, name = max(measured, default=(0.0, 1, ""))
    return name if gate >= 1 / heads + LEAD else ""


def columns(
    services: Services,
    chosen: Sequence[str],
    run_id: str | None,
    model: str,
    other: str | None = None,
    steering: Steering | None = None,
) -> list[Column]:
    """The columns that answer, in the page's order: the tuned model if the run has an adapter, steered if something is
    steered, and those chosen beside it. What can't be loaded says so in its own column.

    Raises:
        HydraError: no column is left.
    """
    run = services.run(run_id) if run_id else None
    tuned = run.id if run and run.has_adapter else None
    loaders: dict[str, Callable[[], LoadedModel]] = {
        "base": lambda: services.loaded_base(run_id, resolve_model(services, model))
    }
    if tuned:
        loaders["run"] = lambda: services.loaded(tuned)
        if steering is not None:
            loaders["steered"] = lambda: services.loaded(tuned)
    if other:
        loaders["other"] = lambda: services.loaded(other)
    wanted = {*chosen, "run", "steered"} if tuned else {*chosen, "base"}
    answering = [
        _column(key, loaders[key], steering if key == "steered" else None)
        for key in COLUMNS
        if key in wanted and key in loaders
    ]
    if not answering:
        raise HydraError("No column can answer. Choose a run that has ended, or the base model.")
    return answering


def _column(key: str, load: Callable[[], LoadedModel], steering: Steering | None) -> Column:
    try:
        return Column(key, load(), steering)
    except HydraError as error:
        return Column(key, None, steering, str(error))
