"""Runs side by side: what was set differently, and what came of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydralora.data.hub import PREFIX
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run


def compare(runs: Sequence[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """Runs, each with its state, side by side.

    Returns:
        differences: {setting: {run id: value}}, of the settings that are not alike in all of them; results: a summary
        of each (see `summary`), with rows, the number of held-out rows, per_task and per_component, and those of its
        base model as well, which are there as soon as it was measured.
    """
    settings = {run.id: _flat(run.recipe().model_dump()) for run, _ in runs}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differences = {}
    for name in names:
        values = {run_id: held.get(name) for run_id, held in settings.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            differences[name] = values
    return {"differences": differences, "results": [summary(run, state) | _measured(run, state) for run, state in runs]}


def summary(run: Run, state: Mapping[str, Any]) -> dict[str, Any]:
    """A run in one row; what is not known is None.

    loss (nats a token) and exact_match (0-1) are of all held-out rows, base_loss and base_exact_match those before
    training; seconds are of training alone; energy_kwh of all that the run did, energy_parts_kwh the same by part (cpu,
    gpu, ram).
    """
    recipe, results = run.recipe(), state.get("results") or {}
    tuned, base = results.get("tuned") or {}, results.get("base") or {}
    energy = dict(results.get("energy_kwh") or {})
    return {
        "run": run.id,
        "state": state["state"],
        "method": recipe.method,
        "model": recipe.model,
        "dataset": dataset_name(recipe),
        "heads": (recipe.tuner.num_heads or state.get("k")) if recipe.has_heads else None,
        "rank": recipe.tuner.r,
        "step": state["step"],
        "max_steps": state["max_steps"],
        "loss": tuned.get("loss"),
        "exact_match": tuned.get("exact_match"),
        "base_loss": base.get("loss"),
        "base_exact_match": base.get("exact_match"),
        "parameters": (results.get("parameters") or {}).get("total"),
        "seconds": (results.get("seconds") or {}).get("training"),
        "energy_kwh": energy.pop("total", None),
        "energy_parts_kwh": energy or None,
    }


def dataset_name(recipe: Recipe) -> str:
    """What a run was trained on, without its folders."""
    files = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    return ", ".join(file if file.startswith(PREFIX) else Path(file).name for file in files)


def _measured(run: Run, state: Mapping[str, Any]) -> dict[str, Any]:
    results = state.get("results") or {}
    tuned, base = results.get("tuned") or {}, results.get("base") or run.before() or {}
    groups = ("per_task", "per_component")
    return {
        "base_loss": base.get("loss"),
        "base_exact_match": base.get("exact_match"),
        "rows": base.get("rows"),
        **{name: tuned.get(name, {}) for name in groups},
        "base": {name: base.get(name, {}) for name in groups},
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
