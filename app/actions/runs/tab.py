"""One run: its label, settings, deletion and restoring."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hydralora.errors import HydraError, RunError
from hydralora.runs.comparison import summary
from hydralora.runs.run import Label

from ...services import Services
from ..reading import counted
from ..recipes import FormValues, form_from_recipe, to_copy, workspace_option
from .comparing import cell, energy
from .listing import damage

ASKING = """messages = [{"role": "user", "content": "Add the two numbers. 19 plus 38"}]
for token in hydralora.generate(model, tokenizer, messages):
    print(token.text, end="", flush=True)
"""


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
        raise RunError(damage(services, run, error)) from error
    return run.id


def view(services: Services, run_id: str | None) -> RunView:
    """One run: its label, its recipe and its use in code."""
    if not run_id:
        return RunView("No run is chosen. Click one in the list.")
    run = services.run(run_id)
    label, recipe, state = run.label(), run.recipe(), services.jobs.refresh(run)
    result = summary(run, state)
    sentence = f"{run.name} is {state.state}: {state.message.rstrip('.')}."
    if result.exact_match is not None:
        tuned = state.results and state.results.tuned
        rows = counted(tuned.rows, "held-out row") if tuned else "Held-out rows"
        sentence += f" {rows}: {cell(result.base_loss, result.base_exact_match)} before, "
        sentence += f"{cell(result.loss, result.exact_match)} after."
    if result.energy_kwh is not None:
        sentence += f" Energy: {energy(result)}."
    return RunView(
        sentence=sentence,
        name=label.name,
        note=label.note,
        tags=", ".join(label.tags),
        recipe=to_copy(recipe),
        code=(_model_code if recipe.method == "full" else _code)(run_id, recipe.model, workspace_option(services)),
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
    if not recipe.tuning.can_continue:
        raise RunError(f"{recipe.tuning.name} can't continue from another run. Resume this one, or train a new one.")
    recipe.start_from = run_id
    recipe.tuner.num_heads = summary(run, run.state()).heads
    return form_from_recipe(services, recipe, keys)


def delete(services: Services, run_id: str) -> str:
    """Delete a run; returns a sentence."""
    services.jobs.delete(services.run(run_id))
    services.release(run_id)
    return f"{run_id} is deleted. This can be undone for a day."


def restorable(services: Services, deleted: object) -> list[str]:
    """The runs of the browser's list of those deleted in it that can still be restored, in the same order."""
    in_bin = services.store.deleted()
    return [run_id for run_id in deleted if run_id in in_bin] if isinstance(deleted, list) else []


def restore(services: Services, deleted: object) -> str:
    """Restore the run deleted last in this browser, whose deletions are `deleted`; returns its id.

    Raises:
        RunError: none of them can be restored.

    """
    run_ids = restorable(services, deleted)
    if not run_ids:
        raise RunError("No run was deleted here in the last day, so none can be restored.")
    return services.store.restore(run_ids[-1]).id


def _code(run_id: str, base: str, workspace: str) -> str:
    return f'''# hydralora export {run_id} --out {run_id}-adapter{workspace}, or unpack the zip file there
import hydralora  # registers the method with PEFT
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

files = hydralora.find_model({json.dumps(base)})
base = AutoModelForCausalLM.from_pretrained(files.folder)
tokenizer = AutoTokenizer.from_pretrained(files.folder)
model = PeftModel.from_pretrained(base, "{run_id}-adapter")
{ASKING}'''


def _model_code(run_id: str, base: str, workspace: str) -> str:
    """The same for a whole model, which needs no base model."""
    return f'''# hydralora export {run_id} --format merged --out {run_id}-model{workspace}, or unpack the zip file there
import hydralora
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{run_id}-model")
model = AutoModelForCausalLM.from_pretrained("{run_id}-model")
{ASKING}'''
