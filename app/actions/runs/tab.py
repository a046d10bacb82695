"""The Runs tab: all runs in a table; one run's label, settings, deletion and restoring."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hydralora.errors import HydraError, RunError
from hydralora.recipe.settings import METHOD_NAMES
from hydralora.runs.comparison import RunSummary, summary
from hydralora.runs.run import Label, Run

from ...services import Services
from ..reading import Cell
from ..recipes import FormValues, form_from_recipe, model_name, to_copy, workspace_option
from .comparing import cell, energy

DAMAGED = "damaged"


@dataclass(frozen=True)
class Listing:
    """All runs, newest first: the table's rows, and the fix for each damaged run, by its id."""

    rows: list[list[Cell]]
    damaged: dict[str, str]


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run; empty if no run is chosen."""

    sentence: str = ""
    name: str = ""
    note: str = ""
    tags: str = ""
    recipe: str = ""
    code: str = ""
    has_adapter: bool = False


@dataclass(frozen=True)
class _Row:
    """A run for the table; a damaged one has only its label."""

    run: Run
    label: Label
    summary: RunSummary | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table: its header, what it holds, its width in pixels, and a run's cell."""

    name: str
    kind: Literal["str", "number"]
    width: int
    cell: Callable[[_Row], Cell]


def _known(cell: Callable[[RunSummary], Cell], unknown: Cell = None) -> Callable[[_Row], Cell]:
    """A cell from a run's summary, which a damaged run lacks."""
    return lambda row: cell(row.summary) if row.summary else unknown


COLUMNS = (
    Column("run", "str", 170, lambda row: row.run.id),
    Column("name", "str", 120, lambda row: row.label.name),
    Column("state", "str", 95, _known(lambda summary: summary.state, DAMAGED)),
    Column("method", "str", 110, _known(lambda summary: METHOD_NAMES[summary.method], "")),
    Column("N", "number", 50, _known(lambda summary: summary.heads)),
    Column("rank", "number", 60, _known(lambda summary: summary.rank)),
    Column("parameters", "number", 110, _known(lambda summary: summary.parameters)),
    Column("dataset", "str", 120, _known(lambda summary: summary.dataset, "")),
    Column("base model", "str", 150, _known(lambda summary: model_name(summary.model), "")),
    Column("loss", "number", 80, _known(lambda summary: _rounded(summary.loss, 4))),
    Column("exact match, %", "number", 95, _known(lambda summary: _rounded(summary.exact_match, 1, 100))),
    Column("training, s", "number", 90, _known(lambda summary: _rounded(summary.seconds, 0))),
    Column("energy, Wh", "number", 90, _known(lambda summary: _rounded(summary.energy_kwh, 2, 1000))),
    Column("tags", "str", 100, lambda row: ", ".join(row.label.tags)),
)


def listing(services: Services) -> Listing:
    """All runs, including unreadable ones: people must see them to repair them."""
    rows, damaged = {}, {}
    for run in [*services.store.all(), *services.store.damaged()]:
        try:
            rows[run.id] = _Row(run, run.label(), summary(run, services.jobs.refresh(run)))
        except HydraError as error:
            damaged[run.id] = _damage(services, run, error)
            rows[run.id] = _Row(run, run.label())
    newest_first = [rows[run_id] for run_id in sorted(rows, reverse=True)]
    return Listing([[column.cell(row) for column in COLUMNS] for row in newest_first], damaged)


def _damage(services: Services, run: Run, error: HydraError) -> str:
    """Why a run can't be read, and what can be done, without folders of this machine."""
    message = str(error)
    if not isinstance(error, RunError):  # its recipe
        message = f"Run {run.id}: {message} Repair that file, or delete the folder {run.folder}."
    return message.replace(f"{services.store.workspace}{os.sep}", "")


def readable(services: Services, run_id: str) -> str:
    """The id of a run that a person chose, once it is known to be readable.

    Raises:
        RunError: it is gone, or damaged.
    """
    run = services.run(run_id)
    try:
        run.state()
        run.recipe()
    except HydraError as error:
        raise RunError(_damage(services, run, error)) from error
    return run.id


def view(services: Services, run_id: str | None) -> RunView:
    """One run: its label, its recipe and its use in code."""
    if not run_id:
        return RunView("No run is chosen. Click one in the table, or choose it above.")
    run = services.run(run_id)
    label, recipe, state = run.label(), run.recipe(), services.jobs.refresh(run)
    result = summary(run, state)
    sentence = f"{run.id} is {state.state}: {state.message.rstrip('.')}."
    if result.exact_match is not None:
        sentence += f" Held-out rows: {cell(result.base_loss, result.base_exact_match)} before, "
        sentence += f"{cell(result.loss, result.exact_match)} after."
    if result.energy_kwh is not None:
        sentence += f" Energy: {energy(result)}."
    return RunView(
        sentence=sentence,
        name=label.name,
        note=label.note,
        tags=", ".join(label.tags),
        recipe=to_copy(recipe),
        code=_code(run_id, recipe.model, workspace_option(services)),
        has_adapter=run.has_adapter,
    )


def label(services: Services, run_id: str, name: str, note: str, tags: str) -> None:
    """Save a run's name, note and tags, which are separated by commas."""
    unique = dict.fromkeys(" ".join(tag.split()) for tag in tags.split(","))
    services.run(run_id).write_label(Label(" ".join(name.split()), note.strip(), tuple(tag for tag in unique if tag)))


def settings(services: Services, run_id: str, keys: Sequence[str]) -> FormValues:
    """A run's settings for the form, which holds `keys`."""
    return form_from_recipe(services, services.run(run_id).recipe(), keys)


def continuing(services: Services, run_id: str, keys: Sequence[str]) -> FormValues:
    """The settings of a run that continues the training of this one, as `settings`."""
    run = services.run(run_id)
    if not run.has_adapter:
        raise RunError(f"Run {run_id} has no adapter to continue from. Wait until it has ended, or resume it.")
    recipe = run.recipe()
    recipe.start_from = run_id
    recipe.tuner.num_heads = summary(run, run.state()).heads
    return form_from_recipe(services, recipe, keys)


def delete(services: Services, run_id: str) -> str:
    """Delete a run; returns a sentence."""
    services.jobs.delete(services.run(run_id))
    services.release(run_id)
    return f"{run_id} is deleted. This can be undone for a day."


def restorable(services: Services, deleted: Sequence[str]) -> list[str]:
    """The runs deleted in this browser that can still be restored, in the same order."""
    in_bin = services.store.deleted()
    return [run_id for run_id in deleted if run_id in in_bin]


def restore(services: Services, deleted: Sequence[str]) -> str:
    """Restore the run deleted last in this browser, whose deletions are `deleted`; returns its id.

    Raises:
        RunError: none of them can be restored.

    """
    run_ids = restorable(services, deleted)
    if not run_ids:
        raise RunError("No run was deleted here in the last day, so none can be restored.")
    return services.store.restore(run_ids[-1]).id


def _rounded(value: float | None, digits: int, times: float = 1) -> float | None:
    return None if value is None else round(value * times, digits)


def _code(run_id: str, base: str, workspace: str) -> str:
    return f'''# hydralora export {run_id} --out {run_id}-adapter{workspace}, or unpack the zip file there
import hydralora  # registers the method with PEFT
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

files = hydralora.find_model({json.dumps(base)})
base = AutoModelForCausalLM.from_pretrained(files.folder)
tokenizer = AutoTokenizer.from_pretrained(files.folder)
model = PeftModel.from_pretrained(base, "{run_id}-adapter")
messages = [{{"role": "user", "content": "Add the two numbers. 19 plus 38"}}]
for token in hydralora.generate(model, tokenizer, messages):
    print(token.text, end="", flush=True)
'''
