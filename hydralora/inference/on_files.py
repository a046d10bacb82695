"""A run's model on the rows of a file: evaluating it on their answers, or answering their questions."""

from collections.abc import Sequence
from pathlib import Path

from hydralora.components.rows import label_rows
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.encoding import encode_prompt, encode_rows, with_heads
from hydralora.data.examples import Example, Message
from hydralora.data.mapping import Mapping, load_mapping
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.files import to_json, write_text
from hydralora.inference.evaluation import evaluate
from hydralora.inference.generation import answer_batch, room_for
from hydralora.inference.model_cache import load_base_model, load_run
from hydralora.models.adapters import is_whole_model, virtual_tokens, without_adapter
from hydralora.recipe.settings import Recipe
from hydralora.runs.records import Record
from hydralora.runs.run import Run
from hydralora.runs.scores import Scores

BATCH = 16  # rows answered at once
Files = Sequence[str | Path] | str | Path


class FileScores(Scores):
    """Scores of a run's model on the rows of files.

    Attributes:
        base: the scores of its base model.
        read: number of rows in the files; `problems`: number of rows left out or cut, by kind.
        components_unknown: why rows could not be assigned to components; None if they could.
    """

    base: Scores
    read: int
    problems: dict[str, int]
    components_unknown: str | None


class FileAnswers(Record):
    """Number of answered rows, and the share (0-1) equal to the file's answers; None if it has none."""

    rows: int
    exact_match: float | None


def evaluate_run(
    run: Run, files: Files, mapping: Mapping | None = None, on_progress: OnProgress = ignore_progress
) -> FileScores:
    """Evaluate a run's model and its base model on the rows of files.

    Args:
        mapping: which column holds what; None: the recipe's, if it has one, else detected from the columns.
        on_progress: called with the rows evaluated and all rows to evaluate; each row counts twice.

    Raises:
        HydraError: the run has no adapter, its base model is not found, or no row can be used.
    """
    recipe, loaded = run.recipe(), load_run(run)
    data = _read(recipe, files, mapping)
    encoded = encode_rows(loaded.tokenizer, data.examples, recipe)
    labels, _, why = label_rows(recipe, [row.example for row in encoded.rows])
    rows = with_heads(encoded.rows, labels) if recipe.tuning.is_told_heads and labels else encoded.rows
    pad, total = loaded.tokenizer.pad_token_id, 2 * len(rows)
    model = loaded.model
    base_model = load_base_model(recipe.model).model if is_whole_model(run.adapter) else model
    with without_adapter(base_model):
        base = evaluate(base_model, rows, pad, lambda done, _: on_progress(done, total), labels)
    tuned = evaluate(model, rows, pad, lambda done, count: on_progress(count + done, total), labels)
    problems = dict(data.by_kind)
    for kind, count in encoded.by_kind.items():
        problems[kind] = problems.get(kind, 0) + count
    return FileScores(**tuned.model_dump(), base=base, read=data.rows, problems=problems, components_unknown=why)


def answer_file(
    run: Run,
    files: Files,
    out: Path,
    column: str | None = None,
    mapping: Mapping | None = None,
    max_new_tokens: int = 256,
    on_progress: OnProgress = ignore_progress,
) -> FileAnswers:
    """Answer the rows of files greedily, and write row, task, prompt, the file's answer and ours as JSONL to `out`.

    Args:
        column: the column with the questions, if the rows have no answers.
        on_progress: called with the rows answered and all rows.

    Raises:
        HydraError: as `evaluate_run`; or a prompt is longer than the model's context.
    """
    recipe, loaded = run.recipe(), load_run(run)
    data = _read(recipe, files, Mapping(text=column) if column else mapping)
    examples = list(data.examples)
    prompts = [_prompt(example) for example in examples]
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    answers: list[str] = [""] * len(examples)
    done = 0
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(by_length), BATCH):
        batch = by_length[start : start + BATCH]
        room = room_for(loaded.model.config, len(ids[batch[-1]]) + virtual_tokens(loaded.model))
        batch_answers = answer_batch(loaded.model, loaded.tokenizer, [ids[i] for i in batch], min(max_new_tokens, room))
        for i, answer in zip(batch, batch_answers, strict=True):
            answers[i] = answer
        done += len(batch)
        on_progress(done, len(ids))
    expected = [None if data.mapping.text else example.answer for example in examples]
    lines = [
        {"row": row.row, "task": row.task, "prompt": prompt[-1]["content"], "expected": reference, "answer": answer}
        for row, prompt, reference, answer in zip(examples, prompts, expected, answers, strict=True)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(to_json(line) + "\n" for line in lines))
    pairs = zip(expected, answers, strict=True)
    right = [reference.strip() == answer.strip() for reference, answer in pairs if reference is not None]
    return FileAnswers(rows=len(lines), exact_match=sum(right) / len(right) if right else None)


def _read(recipe: Recipe, files: Files, mapping: Mapping | None) -> Dataset:
    if mapping is None and recipe.data.mapping:
        mapping = load_mapping(Path(recipe.data.mapping))
    return read_dataset(files, mapping, recipe.data.task_column)


def _prompt(example: Example) -> list[Message]:
    """The prompt; plain text is a question here, since nothing is learnt from it."""
    return example.prompt or [{"role": "user", "content": example.answer}]
