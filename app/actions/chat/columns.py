"""Who answers: the columns of a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydralora.errors import HydraError
from hydralora.inference.generation import gated_modules
from hydralora.inference.model_cache import LoadedModel
from hydralora.inference.traces import answered_by
from hydralora.tuner.steering import Steering

from ...services import Services
from ..adapters import adapter_weights
from ..recipes import model_name, resolve_model
from .answers import COLUMNS, kept_answers


@dataclass(frozen=True)
class Column:
    """The model that answers: a run's, steered or not, or without a run the base model."""

    key: str
    loaded: LoadedModel
    steering: Steering | None = None

    @property
    def title(self) -> str:
        """The heading: who answers, with the adapter's hash and the steering."""
        run = self.loaded.run
        gated = bool(gated_modules(self.loaded.model))
        whose = answered_by(run.id if run else None, self.loaded.adapter_hash, gated, self.steering)
        if not run:
            return f"Base model: {model_name(self.loaded.files.id)}, {whose}"
        return f"Another {whose}" if self.key == "other" else f"Tuned model: {whose}"


def heads_of(services: Services, run_id: str | None) -> int:
    """How many heads a run's adapter has; 0 without one."""
    if not run_id or not services.run(run_id).has_adapter or not services.run(run_id).recipe().has_heads:
        return 0
    return max(len(layer.heads) for layer in adapter_weights(services, run_id).values())


def columns(
    services: Services,
    chosen: Sequence[str],
    run_id: str | None,
    model: str,
    other: str | None = None,
    steering: Steering | None = None,
) -> list[Column]:
    """The chosen columns in the page's order; without an adapter, only the base model's and another run's.

    Raises:
        HydraError: no column is left, steering was not set, or a model can't be loaded.
    """
    run = services.run(run_id) if run_id else None
    tuned = run if run and run.has_adapter else None
    answering = []
    for key in COLUMNS:
        if key not in chosen:
            continue
        if key == "base":
            answering.append(Column(key, services.loaded_base(run_id, resolve_model(services, model))))
        elif key == "other":
            if not other:
                raise HydraError("No other run is chosen. Choose one beside the columns, or deselect its column.")
            answering.append(Column(key, services.loaded(other)))
        elif tuned and key == "steered":
            answering.append(_steered(services, tuned.id, steering))
        elif tuned:
            answering.append(Column(key, services.loaded(tuned.id)))
    if not answering:
        raise HydraError("No column can answer. Choose a column; without a trained run, the base model's.")
    return answering


def _steered(services: Services, run_id: str, steering: Steering | None) -> Column:
    if not heads_of(services, run_id):
        raise HydraError(f"Run {run_id} has no heads, so there is nothing to steer. Deselect the steered column.")
    if steering is None:
        raise HydraError("Nothing is steered yet. Pin or mute a head, or deselect the steered column.")
    return Column("steered", services.loaded(run_id), steering)


def titles(services: Services, run_id: str | None, model: str, answer_ids: Mapping[str, str]) -> dict[str, str]:
    """The heading of each column: who gave its answer, else who will answer."""
    run = services.run(run_id) if run_id else None
    tuned = "Tuned model: none yet. Train one, or choose a run above."
    if run and run.has_adapter:
        tuned = f"Tuned model: run {run.id}, adapter {(run.state().adapter_hash or '')[:8]}"
    base = f"Base model: {model_name(run.recipe().model if run else resolve_model(services, model))}, no adapter"
    headings = {"run": tuned, "steered": f"{tuned}, steered", "base": base, "other": "Another run"}
    return headings | {key: answer.title for key, (_, answer) in kept_answers(services, answer_ids).items()}
