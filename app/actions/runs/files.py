"""The files of a run: export, import, evaluation on a file and answers to a file."""

from collections.abc import Iterator
from pathlib import Path

from hydralora.errors import MissingModelError
from hydralora.inference.on_files import FileScores, answer_file, evaluate_run
from hydralora.models.catalogue import find_model
from hydralora.runs.scores import Score
from hydralora.transfer import export_run, import_run, push_run

from ...services import Services
from ...services.background import Done, in_background
from ...services.processes import in_process
from ..reading import Cell, counted
from ..recipes import resolve_model
from .comparing import ALL, group_name

FORMATS = {
    "The adapter, with recipe and results": "adapter",
    "A plain LoRA that weights the heads by their mean gates, an approximation": "lora",
    "The base model with that LoRA merged into it": "merged",
    "The adapter in the format of the published code": "official",
}
SCORE_COLUMNS = ["rows of", "rows", "loss, base", "loss, run", "exact match, base", "exact match, run"]


def push(services: Services, run_id: str, repository: str) -> str:
    """Upload a run to the Hugging Face Hub, into a private repository; returns a sentence."""
    return f"Uploaded: {push_run(services.run(run_id), repository.strip())}"


def export(services: Services, run_id: str, form: str) -> Iterator[str | Done[tuple[str, Path]]]:
    """Write a run into a zip file to download: yields sentences, then the last one with the file."""
    run = services.run(run_id)
    target = services.download(f"{run_id}-{form}.zip", of=str(run.state().adapter_hash))
    yield "Writing the file …"
    for step in in_background(lambda on_progress: in_process(export_run, run, form, target, on_progress=on_progress)):
        if isinstance(step, Done):
            exported = step.value
            sentences = [f"{target.name}, {exported.bytes / 1e6:.1f} MB, is ready."]
            if exported.kl is not None:
                sentences.append(f"Its KL divergence from the routed model is {exported.kl:.4g} nats per token.")
            yield Done((" ".join([*sentences, exported.comparison]), target))


def import_file(services: Services, file: str, model: str) -> str:
    """Import a run from an uploaded file; returns its id.

    Args:
        model: the base model in the form, for an adapter whose base model was a folder of another machine.

    Raises:
        HydraError: the file is not an exported run.
    """
    try:
        return import_run(services.store, Path(file or "run.zip")).id
    except MissingModelError:
        pass
    chosen = find_model(resolve_model(services, model), download=False)
    return import_run(services.store, Path(file), str(chosen.folder)).id


def evaluate(services: Services, run_id: str, file: str) -> Iterator[str | Done[tuple[str, list[list[Cell]]]]]:
    """Evaluate a run on an uploaded file: yields sentences, then the last one with a table."""
    run, name = services.run(run_id), Path(file or "").name
    for step in in_background(lambda on_progress: in_process(evaluate_run, run, file, None, on_progress=on_progress)):
        if isinstance(step, Done):
            scores = step.value
            left_out = scores.read - scores.rows
            note = f", {left_out} left out" if left_out else ""
            rows = counted(scores.rows, "row")
            yield Done((f"{name}: {rows} measured{note}.", _score_rows(scores)))
        else:
            yield f"Evaluating on {name}: {step.done} of {step.total} rows, the base model's first."


def _score_rows(scores: FileScores) -> list[list[Cell]]:
    groups: list[tuple[str, Score, Score]] = [(ALL, scores.base, scores)]
    groups += [(f"task {name}", scores.base.per_task[name], tuned) for name, tuned in scores.per_task.items()]
    groups += [
        (group_name(f"component {name}"), scores.base.per_component[name], tuned)
        for name, tuned in scores.per_component.items()
    ]
    return [
        [name, tuned.rows, base.loss_text, tuned.loss_text, f"{base.exact_match:.1%}", f"{tuned.exact_match:.1%}"]
        for name, base, tuned in groups
    ]


def answers(services: Services, run_id: str, file: str) -> Iterator[str | Done[tuple[str, Path]]]:
    """Answer the rows of an uploaded file: yields sentences, then the last one with the file of answers."""
    run = services.run(run_id)
    out = services.download("answers.jsonl", of=f"{file} {run_id}")
    arguments = (run, file, out, None, None, 256)
    for step in in_background(lambda on_progress: in_process(answer_file, *arguments, on_progress=on_progress)):
        if isinstance(step, Done):
            right = step.value.exact_match
            equal = "" if right is None else f" {right:.1%} match the answers in the file."
            yield Done((f"{step.value.rows} answers to {Path(file).name}.{equal}", out))
        else:
            yield f"Answering {Path(file).name}: {step.done} of {step.total} rows."
