"""Public benchmarks by EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), which
defines the tasks and scores the answers; here a run's model, and its base model beside it, answer them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import ConfigError, HydraError, ModelError, first_line
from hydralora.files import write_json
from hydralora.inference.model_cache import load_base_model, load_run
from hydralora.models.adapters import is_whole_model, without_adapter
from hydralora.models.types import Tokenizer
from hydralora.runs.results import Metrics, TaskScores
from hydralora.runs.run import Run

BATCH = 8  # requests at once
FILE = "benchmarks.json"
BACKEND = "hydralora"  # as lm_eval's --model names it

_KEPT = TypeAdapter(dict[str, TaskScores])


def evaluate_tasks(
    run: Run,
    tasks: Sequence[str],
    limit: int | None = None,
    definitions: Path | None = None,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, TaskScores]:
    """Evaluate a run's model and its base model on tasks; the scores are kept with the run too.

    Args:
        tasks: names, such as gsm8k; a group's name stands for its tasks.
        limit: evaluate this many rows of each task; None: all.
        definitions: a folder of further task definitions, in the harness' YAML. These may run Python code.
        on_progress: called with the models evaluated, of two.

    Raises:
        HydraError: the harness is not installed, it has no such task, or a task's rows can't be fetched.
    """
    check_tasks(tasks, definitions)
    loaded = load_run(run)
    base = load_base_model(run.recipe().model) if is_whole_model(run.adapter) else loaded
    on_progress(0, 2)
    with without_adapter(base.model):
        before = evaluate_model(base.model, base.tokenizer, tasks, limit, definitions)
    on_progress(1, 2)
    after = evaluate_model(loaded.model, loaded.tokenizer, tasks, limit, definitions)
    on_progress(2, 2)
    scores = {name: TaskScores(base=before[name], tuned=after[name], limit=limit) for name in after}
    kept = read_task_scores(run) | scores
    write_json(run.folder / FILE, {name: each.values() for name, each in kept.items()})
    return scores


def read_task_scores(run: Run) -> dict[str, TaskScores]:
    """The scores of all tasks that a run was evaluated on; a damaged file counts as none."""
    try:
        return _KEPT.validate_json((run.folder / FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}


def register_backend() -> None:
    """Let lm_eval's `--model hydralora --model_args run=RUN[,workspace=DIR]` load a run.

    Raises:
        ConfigError: the harness is not installed.
    """
    _harness()
    from lm_eval.api.registry import model_registry
    from lm_eval.models.huggingface import HFLM

    from hydralora.runs.store import RunStore

    class HydraModel(HFLM):
        """A run's model, with its adapter."""

        def __init__(self, run: str, workspace: str | None = None, **options: Any) -> None:
            loaded = load_run(RunStore(workspace).get(run))
            super().__init__(pretrained=loaded.model, tokenizer=loaded.tokenizer, backend="causal", **options)

    if BACKEND not in model_registry:
        model_registry.register(BACKEND, target=HydraModel)


def _harness() -> Any:
    try:
        import lm_eval
    except ImportError as error:
        raise ConfigError("Public benchmarks need lm-eval: pip install 'hydralora-studio[eval]'.") from error
    return lm_eval


def check_tasks(names: Sequence[str], definitions: Path | None = None) -> None:
    """
    Raises:
        ConfigError: the harness is not installed, it has no task or group of such a name, or no such folder is there.
    """
    _harness()
    if definitions and not definitions.is_dir():
        raise ConfigError(f"{definitions}: there is no such folder of task definitions.")
    known = _manager(definitions).all_tasks
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"lm-evaluation-harness has no task {unknown[0][:200]!r}. `hydralora with lm_eval ls tasks` lists them."
        )


def evaluate_model(
    model: Any, tokenizer: Tokenizer, tasks: Sequence[str], limit: int | None = None, definitions: Path | None = None
) -> dict[str, Metrics]:
    """A model's metrics by task; a group has an entry of its own, or only its tasks have.

    Raises:
        ModelError: the rows can't be fetched, or what else the harness couldn't do; its cause is the harness' error.
    """
    from lm_eval.models.huggingface import HFLM

    try:
        found = _harness().simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=BATCH),
            tasks=list(tasks),
            limit=limit,
            task_manager=_manager(definitions),
            bootstrap_iters=0,
            log_samples=False,
        )
    except HydraError:
        raise
    except Exception as error:  # of any kind, by what a task's rows, code or metrics need
        raise ModelError(f"{', '.join(tasks)}: the harness can't evaluate it ({first_line(error)}).") from error
    return {name: _metrics(values) for name, values in found["results"].items()}


@cache
def _manager(definitions: Path | None) -> Any:
    """The harness' tasks; listing them takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(definitions) if definitions else None)


def _metrics(values: dict[str, object]) -> Metrics:
    """A task's numbers without their standard errors; names without the filter that does nothing."""
    numbers = {
        name: value for name, value in values.items() if isinstance(value, int | float) and "_stderr" not in name
    }
    return {name.removesuffix(",none"): float(value) for name, value in numbers.items() if "," in name}
