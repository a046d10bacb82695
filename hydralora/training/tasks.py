"""Public benchmarks as a run's own measurement: its base model's metrics before training, and its own after it."""

import hashlib
import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hydralora.errors import ModelError
from hydralora.files import write_json
from hydralora.inference.benchmarks import evaluate_model
from hydralora.recipe.settings import Recipe
from hydralora.runs.results import Metrics, TaskScores
from hydralora.runs.state import Stage
from hydralora.training.monitor import Reporter
from hydralora.training.preparation import Prepared
from hydralora.training.stopping import StopRequestedError

_KEPT = TypeAdapter(Metrics)


def base_metrics(prepared: Prepared, recipe: Recipe, folder: Path | None, reporter: Reporter) -> dict[str, Metrics]:
    """The base model's metrics by task; none if the recipe names no task.

    Args:
        folder: where they are kept for other runs; None: nowhere.
    """
    return _metrics(prepared, recipe, Stage.EVALUATING_BASE_TASKS, folder, reporter)


def tuned_scores(
    prepared: Prepared, recipe: Recipe, base: dict[str, Metrics], reporter: Reporter
) -> dict[str, TaskScores]:
    """The tuned model's metrics beside its base model's, by task; none if the recipe names no task."""
    tuned = _metrics(prepared, recipe, Stage.EVALUATING_TUNED_TASKS, None, reporter)
    limit = recipe.training.benchmark_rows
    return {name: TaskScores(base=base[name], tuned=metrics, limit=limit) for name, metrics in tuned.items()}


def _metrics(
    prepared: Prepared, recipe: Recipe, stage: Stage, folder: Path | None, reporter: Reporter
) -> dict[str, Metrics]:
    """
    Raises:
        StopRequestedError: the monitor asks to stop.
        ModelError: the harness can't evaluate a task.
    """
    tasks, found = recipe.training.benchmarks or [], dict[str, Metrics]()
    if tasks:
        reporter.stage(stage)
    for i, task in enumerate(tasks):
        reporter.progress(i, len(tasks))
        file = folder / f"task-{_digest(prepared, recipe, task)}.json" if folder else None
        known = _read(file)
        if known is None:
            known = _measured(prepared, task, recipe.training.benchmark_rows)
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, known)
        found |= {task: known}
    return found


def _measured(prepared: Prepared, task: str, rows: int) -> Metrics:
    try:
        scores = evaluate_model(prepared.model, prepared.tokenizer, [task], rows)
    except ModelError as error:
        if isinstance(error.__cause__, StopRequestedError):  # asked for within a pass
            raise error.__cause__ from None
        raise
    return _merged(task, scores)


def _merged(task: str, scores: dict[str, Metrics]) -> Metrics:
    """A task's own metrics; those of a group without any are its tasks' means."""
    if own := scores.get(task):
        return own
    parts = [metrics for metrics in scores.values() if metrics]  # the group's own are none
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    return {name: sum(part[name] for part in parts) / len(parts) for name in names}


def _digest(prepared: Prepared, recipe: Recipe, task: str) -> str:
    asked = [prepared.files.hash, recipe.quantization, prepared.device, task, recipe.training.benchmark_rows]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def _read(file: Path | None) -> Metrics | None:
    """None for a file that is missing or damaged, which is then written again."""
    try:
        return _KEPT.validate_json(file.read_bytes()) if file else None
    except (OSError, ValidationError):
        return None
