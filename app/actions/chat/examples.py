"""Example prompts: rows that the chosen run has never seen, a few of each task."""

from collections.abc import Sequence
from typing import TypedDict

from hydralora.components.rows import read_split
from hydralora.data.examples import Example
from hydralora.data.split import Split
from hydralora.errors import HydraError

from ...services import Services
from ...services.cache import ResultKind
from ..recipes import recipe_from_form

PROMPTS = 12
SPLIT = ResultKind[Split]("split")


class ExamplePrompt(TypedDict):
    """A held-out row to try."""

    question: str
    expected: str
    task: str


def examples(services: Services, run_id: str | None, dataset_id: str) -> list[ExamplePrompt]:
    """Held-out rows of the run, else of the dataset; the tasks take turns. None if its rows are gone."""
    rows = in_turns(heldout_rows(services, run_id, dataset_id), PROMPTS)
    return [{"question": row.question, "expected": row.answer, "task": row.task or ""} for row in rows]


def heldout_rows(services: Services, run_id: str | None, dataset_id: str) -> list[Example]:
    """The held-out rows of the run, else of the dataset; none if its rows are gone."""
    try:
        if run_id:
            recipe, key = services.run(run_id).recipe(), run_id
        else:
            recipe, key = recipe_from_form(services, dataset_id, "", {}), dataset_id
        return services.cache.remember(SPLIT, key, compute=lambda: read_split(recipe)).heldout
    except HydraError:
        return []


def in_turns(rows: Sequence[Example], count: int) -> list[Example]:
    """The first `count` rows if the tasks take turns."""
    by_task: dict[str, list[Example]] = {}
    for row in rows:
        by_task.setdefault(row.task or "", []).append(row)
    return [tasks[i] for i in range(count) for _, tasks in sorted(by_task.items()) if i < len(tasks)][:count]
