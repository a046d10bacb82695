"""The Runs tab: all runs in a table; one of them named, measured, given away or deleted; several compared."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydralora.errors import HydraError, RunError
from hydralora.inference.on_files import answer_file, evaluate_run
from hydralora.models.catalogue import find_model
from hydralora.recipe.settings import METHOD_NAMES
from hydralora.runs.comparison import summary
from hydralora.runs.run import Label, Run
from hydralora.transfer import export_run, import_run, push_run

from ...services import Services
from ...services.background import Done, in_background
from ...services.processes import in_process
from ..recipes import FormValues, form_from_recipe, model_name, resolve_model, to_copy, workspace_option
from .comparing import ALL, GROUPS, cell, energy, group_name

COLUMNS: dict[str, tuple[Literal["str", "number"], int]] = {  # what a column holds, and its width in pixels
    "run": ("str", 170),
    "name": ("str", 120),
    "state": ("str", 95),
    "method": ("str", 110),
    "N": ("number", 50),
    "rank": ("number", 60),
    "parameters": ("number", 110),
    "dataset": ("str", 120),
    "base model": ("str", 150),
    "loss": ("number", 80),
    "exact match, %": ("number", 95),
    "training, s": ("number", 90),
    "energy, Wh": ("number", 90),
    "tags": ("str", 100),
}
FORMATS = {
    "The adapter, with recipe and results": "adapter",
    "A plain LoRA of the heads' mean gates, an approximation": "lora",
    "The base model with that LoRA merged into it": "merged",
    "The adapter as the published code reads it": "official",
}
SCORE_COLUMNS = ["rows of", "rows", "loss, base", "loss, run", "exact match, base", "exact match, run"]
DAMAGED = "damaged"


@dataclass(frozen=True)
class Listing:
    """All runs, newest first: the table's rows, and of each that is damaged, by its id, what can be done."""

    rows: list[list[Any]]
    damaged: dict[str, str]


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run; all empty where there is none."""

    sentence: str = ""
    name: str = ""
    note: str = ""
    tags: str = ""
    recipe: str = ""
    code: str = ""
    has_adapter: bool = False


def listing(services: Services) -> Listing:
    """All runs, also those that can't be read: a person must see them to mend them."""
    lines, damaged = [], {}
    for run in [*services.store.all(), *services.store.damaged()]:
        try:
            lines.append(_line(services, run))
        except HydraError as error:
            damaged[run.id] = _damage(services, run, error)
            lines.append(_damaged_line(run))
    return Listing(sorted(lines, key=lambda line: line[0], reverse=True), damaged)


def _line(services: Services, run: Run) -> list[Any]:
    row, label = summary(run, services.jobs.refresh(run)), run.label()
    return [
        run.id,
        label.name,
        row["state"],
        METHOD_NAMES[row["method"]],
        row["heads"],
        row["rank"],
        row["parameters"],
        row["dataset"],
        model_name(row["model"]),
        _rounded(row["loss"], 4),
        _rounded(row["exact_match"], 1, 100),
        _rounded(row["seconds"], 0),
        _rounded(row["energy_kwh"], 2, 1000),
        ", ".join(label.tags),
    ]


def _damaged_line(run: Run) -> list[Any]:
    label = run.label()
    known = {"run": run.id, "name": label.name, "state": DAMAGED, "tags": ", ".join(label.tags)}
    return [known.get(column, "" if kind == "str" else None) for column, (kind, _) in COLUMNS.items()]


def _damage(services: Services, run: Run, error: HydraError) -> str:
    """Why a run can't be read, and what can be done, without folders of this machine."""
    told = str(error)
    if not isinstance(error, RunError):  # its recipe
        told = f"Run {run.id}: {told} Mend that file, or delete the folder {run.folder}."
    return told.replace(f"{services.store.workspace}{os.sep}", "")


def readable(services: Services, run_id: str) -> str:
    """The id of a run that a person asks for.

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
    """One run: what it is called, its recipe, and how it is used in code."""
    if not run_id:
        return RunView("No run is chosen. Click one in the table, or choose it above.")
    run = services.run(run_id)
    label, recipe, state = run.label(), run.recipe(), services.jobs.refresh(run)
    result = summary(run, state)
    told = f"{run.id} is {state['state']}: {state['message'].rstrip('.')}."
    if result["loss"] is not None:
        told += f" Held-out rows: {cell(result['base_loss'], result['base_exact_match'])} before, "
        told += f"{cell(result['loss'], result['exact_match'])} after."
    if result["energy_kwh"] is not None:
        told += f" Energy: {energy(result)}."
    return RunView(
        sentence=told,
        name=label.name,
        note=label.note,
        tags=", ".join(label.tags),
        recipe=to_copy(recipe),
        code=_code(run_id, recipe.model, workspace_option(services)),
        has_adapter=run.has_adapter,
    )


def label(services: Services, run_id: str, name: str, note: str, tags: str) -> None:
    """Keep what a person writes on a run; tags with commas between."""
    found = dict.fromkeys(" ".join(tag.split()) for tag in tags.split(","))
    services.run(run_id).write_label(Label(" ".join(name.split()), note.strip(), tuple(tag for tag in found if tag)))


def settings(services: Services, run_id: str, keys: Sequence[str]) -> FormValues:
    """A run's settings for the form, which holds `keys`."""
    return form_from_recipe(services, services.run(run_id).recipe(), keys)


def going_on(services: Services, run_id: str, keys: Sequence[str]) -> FormValues:
    """The settings of a run that trains on from this one, as `settings`."""
    run = services.run(run_id)
    if not run.has_adapter:
        raise RunError(f"Run {run_id} has no adapter to train on from. Wait until it has ended, or resume it.")
    recipe = run.recipe()
    recipe.start_from = run_id
    recipe.tuner.num_heads = summary(run, run.state())["heads"]
    return form_from_recipe(services, recipe, keys)


def push(services: Services, run_id: str, repository: str) -> str:
    """Upload a run to the Hugging Face Hub, into a private repository; returns a sentence."""
    return f"Uploaded: {push_run(services.run(run_id), repository.strip())}"


def delete(services: Services, run_id: str) -> str:
    """Take a run out of the list; returns a sentence."""
    services.jobs.delete(services.run(run_id))
    services.let_go(run_id)
    return f"{run_id} is deleted; for a day it can be brought back."


def restorable(services: Services, deleted: Sequence[str]) -> list[str]:
    """Of the runs that were deleted in this browser, in that order, those that can be brought back."""
    kept = services.store.deleted()
    return [run_id for run_id in deleted if run_id in kept]


def restore(services: Services, deleted: Sequence[str]) -> str:
    """Bring back the run that was deleted last of `deleted`, those of this browser; returns its id.

    Raises:
        RunError: none of them can be.
    """
    found = restorable(services, deleted)
    if not found:
        raise RunError("No run was deleted here in the last day, so none can be brought back.")
    return services.store.restore(found[-1]).id


def export(services: Services, run_id: str, form: str) -> Iterator[str | Done[tuple[str, Path]]]:
    """Write a run into a zip file to download; sentences, then the last one with the file."""
    run = services.run(run_id)
    target = services.download(f"{run_id}-{form}.zip", of=str(run.state()["adapter_hash"]))
    yield "Writing the file ..."
    for step in in_background(lambda on_progress: in_process(export_run, run, form, target, on_progress=on_progress)):
        if isinstance(step, Done):
            kl = step.value["kl"]
            apart = "" if kl is None else f" From the routed model it is {kl:.4g} nats a token away."
            yield Done((f"{target.name}, {step.value['bytes'] / 1e6:.1f} MB, is ready.{apart}", target))


def take(services: Services, file: str, model: str) -> str:
    """Make a run of an uploaded file; returns its id.

    Args:
        model: the base model that the form names, for an adapter whose own was a folder of another machine.

    Raises:
        HydraError: the file is not an exported run.
    """
    try:
        return import_run(services.store, Path(file)).id
    except HydraError as error:
        if "--model" not in str(error):
            raise
    chosen = find_model(resolve_model(services, model), download=False)
    return import_run(services.store, Path(file), str(chosen.folder)).id


def evaluate(services: Services, run_id: str, file: str) -> Iterator[str | Done[tuple[str, list[list[Any]]]]]:
    """Measure a run on an uploaded file; sentences, then the last one with a table."""
    run, name = services.run(run_id), Path(file).name
    for step in in_background(lambda on_progress: in_process(evaluate_run, run, file, None, on_progress=on_progress)):
        if isinstance(step, Done):
            scores = step.value
            left_out = scores["read"] - scores["rows"]
            told = f"{name}: {scores['rows']} rows measured{f', {left_out} left out' if left_out else ''}."
            yield Done((told, _score_rows(scores)))
        else:
            yield f"Evaluating on {name}: {step[0]} of {step[1]} rows, those of the base model first."


def _score_rows(scores: dict[str, Any]) -> list[list[Any]]:
    groups = [(ALL, scores["base"], scores)]
    for key, kind in GROUPS.items():
        groups += [(group_name(kind, group), scores["base"][key][group], found) for group, found in scores[key].items()]
    return [
        [name, tuned["rows"], *(f"{found['loss']:.3f}" for found in (base, tuned))]
        + [f"{found['exact_match']:.1%}" for found in (base, tuned)]
        for name, base, tuned in groups
    ]


def answers(services: Services, run_id: str, file: str) -> Iterator[str | Done[tuple[str, Path]]]:
    """Answer the rows of an uploaded file; sentences, then the last one with the file of answers."""
    run = services.run(run_id)
    out = services.download("answers.jsonl", of=f"{file} {run_id}")
    arguments = (run, file, out, None, None, 256)
    for step in in_background(lambda on_progress: in_process(answer_file, *arguments, on_progress=on_progress)):
        if isinstance(step, Done):
            right = step.value["exact_match"]
            equal = "" if right is None else f" {right:.1%} are as the file has them."
            yield Done((f"{step.value['rows']} answers to {Path(file).name}.{equal}", out))
        else:
            yield f"Answering {Path(file).name}: {step[0]} of {step[1]} rows."


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
