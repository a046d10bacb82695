"""A run's model on the rows of a file: measured on their answers, or asked for answers of its own."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydralora.clustering import renamed
from hydralora.components import component_texts
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.examples import Example
from hydralora.data.mapping import Mapping, load_mapping
from hydralora.data.templates import encode_all, encode_prompt
from hydralora.errors import ConfigError, HydraError
from hydralora.evaluation import evaluate
from hydralora.files import to_json, write_text
from hydralora.generation import answer_batch, room_for
from hydralora.preparation import components_of, read_rows, read_used
from hydralora.probing import HeadUse, TokenGates, probe
from hydralora.recipe import Recipe
from hydralora.runs import Run
from hydralora.serving import load_run

BATCH = 16  # rows answered at once
PROBED = 128  # held-out rows, at random
PROBED_TRAINING = 64  # training rows, at random

Files = Sequence[str | Path] | str | Path
OnProgress = Callable[[int, int], None]


def evaluate_run(
    run: Run, files: Files, mapping: Mapping | None = None, on_progress: OnProgress = lambda done, total: None
) -> dict[str, Any]:
    """How well a run's model answers the rows of files, beside its base model.

    Args:
        mapping: which column holds what; None takes the recipe's, if it names one, else tells it by the columns.
        on_progress: called with the rows measured and all there are to measure, twice each.

    Returns:
        loss, exact_match, rows, per_task, per_component of the run's model, and the same of the base model under base;
        read, the rows of the files; problems, by kind, of those left out or cut; components_unknown, why rows could not
        be put to components, else None.

    Raises:
        HydraError: the run has no adapter, its base model is not found, or no row can be used.
    """
    recipe, loaded = run.recipe(), load_run(run)
    data = _read(recipe, files, mapping)
    encoded = encode_all(loaded.tokenizer, data.examples, recipe.training.max_length, recipe.training.overlong)
    labels, _, why = _components(recipe, [row.example for row in encoded.rows])
    pad, total = loaded.tokenizer.pad_token_id, 2 * len(encoded.rows)
    model = loaded.model
    with model.disable_adapter():
        base = evaluate(model, encoded.rows, pad, lambda done, rows: on_progress(done, total), labels)
    tuned = evaluate(model, encoded.rows, pad, lambda done, rows: on_progress(rows + done, total), labels)
    problems = dict(data.by_kind)
    for kind, count in encoded.by_kind.items():
        problems[kind] = problems.get(kind, 0) + count
    return tuned | {"base": base, "read": data.rows, "problems": problems, "components_unknown": why}


@dataclass(frozen=True)
class Probed:
    """What a run's heads do on some of its rows.

    Attributes:
        use: on held-out rows, and `tokens` the gates of every token of them.
        components: of each held-out row; None where the rows that the run was trained on are gone.
        names: of the components.
        tasks: of each held-out row, None where it has none.
        training: on rows that the run was trained on, `training_rows`.
    """

    use: HeadUse
    tokens: TokenGates
    components: list[int] | None
    names: list[str]
    tasks: list[str | None]
    training: HeadUse
    training_rows: list[Example]


def probe_run(run: Run, on_progress: OnProgress = lambda done, total: None) -> Probed:
    """How a run's heads are used on up to `PROBED` of its held-out rows, and `PROBED_TRAINING` that it learnt from.

    Raises:
        HydraError: the run has no adapter with heads, or its rows or its base model are gone.
    """
    recipe = run.recipe()
    if not recipe.has_heads:
        raise ConfigError("This run is a plain LoRA: it has no heads to look at. Choose a run with method hydralora.")
    rows, rng, settings = read_used(recipe), random.Random(recipe.training.seed), recipe.training
    loaded = load_run(run)
    pad = loaded.tokenizer.pad_token_id
    heldout, learnt = (
        encode_all(
            loaded.tokenizer, rng.sample(part, min(count, len(part))), settings.max_length, settings.overlong
        ).rows
        for part, count in ((rows.heldout, PROBED), (rows.train, PROBED_TRAINING))
    )
    total = len(heldout) + len(learnt)
    use, tokens = probe(loaded.model, heldout, pad, lambda done, _: on_progress(done, total))
    training, _ = probe(loaded.model, learnt, pad, lambda done, _: on_progress(len(heldout) + done, total))
    examples = [row.example for row in heldout]
    labels, names, _ = _components(recipe, examples)
    tasks = [example.task or None for example in examples]
    return Probed(use, tokens, labels, names, tasks, training, [row.example for row in learnt])


def one_of_each(run: Run, on_progress: OnProgress = lambda done, total: None) -> list[tuple[str, Example]]:
    """A held-out row of each of a run's components that has one, with the component's name.

    Raises:
        HydraError: the run's rows are gone, or can't be clustered.
    """
    recipe = run.recipe()
    heldout = read_used(recipe).heldout
    labels, names, why = _components(recipe, heldout)
    if labels is None:
        raise HydraError(why or "The components are not known.")
    return [(name, heldout[labels.index(i)]) for i, name in enumerate(names) if i in labels]


def answer_file(
    run: Run,
    files: Files,
    out: Path,
    column: str | None = None,
    mapping: Mapping | None = None,
    max_new_tokens: int = 256,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Answer the rows of files greedily, and write row, task, prompt, the file's answer and ours as JSONL to `out`.

    Args:
        column: the column with the questions, where rows have no answers of their own.
        on_progress: called with the rows answered and all there are.

    Returns:
        rows, how many were answered, and exact_match, the share (0-1) equal to the file's answers; None without those.

    Raises:
        HydraError: as `evaluate_run`; or a prompt is longer than the model reads.
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
        room = room_for(loaded.model.config, len(ids[batch[-1]]))
        said = answer_batch(loaded.model, loaded.tokenizer, [ids[i] for i in batch], min(max_new_tokens, room))
        for i, answer in zip(batch, said, strict=True):
            answers[i] = answer
        done += len(batch)
        on_progress(done, len(ids))
    expected = [None if data.mapping.text else example.answer for example in examples]
    lines = [
        {"row": row.row, "task": row.task, "prompt": prompt[-1]["content"], "expected": wanted, "answer": answer}
        for row, prompt, wanted, answer in zip(examples, prompts, expected, answers, strict=True)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(to_json(line) + "\n" for line in lines))
    pairs = zip(expected, answers, strict=True)
    right = [wanted.strip() == answer.strip() for wanted, answer in pairs if wanted is not None]
    return {"rows": len(lines), "exact_match": sum(right) / len(right) if right else None}


def _read(recipe: Recipe, files: Files, mapping: Mapping | None) -> Dataset:
    if mapping is None and recipe.data.mapping:
        mapping = load_mapping(Path(recipe.data.mapping))
    return read_dataset(files, mapping, recipe.data.task_column)


def _components(recipe: Recipe, examples: Sequence[Example]) -> tuple[list[int] | None, list[str], str | None]:
    """The component of each row, and their names; or None, and why: the rows that a run was trained on may be gone."""
    try:
        clusters = components_of(recipe, read_rows(recipe).examples)
        names = [component.name for component in renamed(clusters.components, recipe.components.names)]
        return clusters.assign(component_texts(examples, recipe.components)), names, None
    except HydraError as error:
        return None, [], str(error)


def _prompt(example: Example) -> list[dict[str, str]]:
    """What is asked; plain text is a question, since here nothing is learnt from it."""
    return example.prompt or [{"role": "user", "content": example.answer}]
