"""Comparison of runs: settings that differ, and results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from hydralora.data.hub import PREFIX
from hydralora.recipe.settings import Recipe
from hydralora.runs.records import Name, Record
from hydralora.runs.run import Run
from hydralora.runs.scores import Score
from hydralora.runs.state import RunState, StateName


class RunSummary(Record):
    """A run in one row; unknown values are None.

    Attributes:
        heads: per adapted layer; None for an adapter without heads.
        rank: None for a method without one.
        loss, exact_match: on all held-out rows, nats per token and 0 to 1; `base_...` those before training.
        seconds: of the training steps only.
        energy_kwh: of the whole run; `energy_parts_kwh` the same by part (cpu, gpu, ram).
    """

    run: str
    state: StateName
    method: str
    model: str
    dataset: str
    heads: int | None
    rank: int | None
    step: int
    max_steps: int | None
    loss: float | None
    exact_match: float | None
    base_loss: float | None
    base_exact_match: float | None
    parameters: int | None
    seconds: float | None
    energy_kwh: float | None
    energy_parts_kwh: dict[str, float] | None


class GroupScores(Record):
    """Scores of each task, and of each component."""

    per_task: dict[Name, Score] = Field(default_factory=dict)
    per_component: dict[Name, Score] = Field(default_factory=dict)


class RunMeasurements(RunSummary, GroupScores):
    """A run's summary with scores by group, its own and its base model's.

    Attributes:
        rows: held-out rows; None if the base model was not evaluated yet.
    """

    rows: int | None
    base: GroupScores

    def pairs(self) -> dict[str, tuple[Score | None, Score | None]]:
        """By "task NAME" and "component NUMBER", from 0: the base model's scores, and the run's."""
        scores: dict[str, tuple[Score | None, Score | None]] = {}
        for kind, base, tuned in (
            ("task", self.base.per_task, self.per_task),
            ("component", self.base.per_component, self.per_component),
        ):
            scores |= {
                f"{kind} {group}": (base.get(group), tuned.get(group)) for group in dict.fromkeys((*base, *tuned))
            }
        return scores


class Comparison(Record):
    """Runs side by side.

    Attributes:
        differences: {setting: {run id: value}}, of the settings that differ.
    """

    differences: dict[str, dict[str, object]]
    results: list[RunMeasurements]


def compare(runs: Sequence[tuple[Run, RunState]]) -> Comparison:
    """Runs, each with its state, side by side."""
    settings = {run.id: _flat(run.recipe().model_dump()) for run, _ in runs}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differences = {}
    for name in names:
        values = {run_id: run_settings.get(name) for run_id, run_settings in settings.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            differences[name] = values
    return Comparison(differences=differences, results=[_measured(run, state) for run, state in runs])


def summary(run: Run, state: RunState, recipe: Recipe | None = None) -> RunSummary:
    """A run in one row; `recipe` is its recipe, if that was read already."""
    recipe, results = recipe or run.recipe(), state.results
    tuned, base = (results.tuned, results.base) if results else (None, None)
    energy = dict(results.energy_kwh or {}) if results else {}
    return RunSummary(
        run=run.id,
        state=state.state,
        method=recipe.method,
        model=recipe.model,
        dataset=dataset_name(recipe),
        heads=(recipe.tuner.num_heads or state.k) if recipe.has_heads else None,
        rank=recipe.tuner.r if recipe.tuning.has_rank else None,
        step=state.step,
        max_steps=state.max_steps,
        loss=tuned.loss if tuned else None,
        exact_match=tuned.exact_match if tuned else None,
        base_loss=base.loss if base else None,
        base_exact_match=base.exact_match if base else None,
        parameters=results.parameters.total if results and results.parameters else None,
        seconds=results.seconds.get("training") if results else None,
        energy_kwh=energy.pop("total", None),
        energy_parts_kwh=energy or None,
    )


def dataset_name(recipe: Recipe) -> str:
    """The names of a run's training files, without folders."""
    files = recipe.data.train_files
    return ", ".join(file if file.startswith(PREFIX) else Path(file).name for file in files)


def _measured(run: Run, state: RunState) -> RunMeasurements:
    results = state.results
    tuned = results.tuned if results else None
    base = (results.base if results else None) or run.before()
    measurements = {
        "base_loss": base.loss if base else None,
        "base_exact_match": base.exact_match if base else None,
        "rows": base.rows if base else None,
    }
    groups = set(GroupScores.model_fields)
    return RunMeasurements.model_validate(
        summary(run, state).model_dump()
        | measurements
        | (tuned.model_dump(include=groups) if tuned else GroupScores().model_dump())
        | {"base": base.model_dump(include=groups) if base else {}}
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
