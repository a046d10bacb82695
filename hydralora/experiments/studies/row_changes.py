"""Changes of a study's rows: fewer kinds of rows, kinds of unequal size, wrong answers, solved rows in prompts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from hydralora.components.rows import label_rows
from hydralora.data.dataset import read_dataset
from hydralora.data.examples import Example
from hydralora.errors import DatasetError
from hydralora.experiments.studies.rows import PARTS, RowFiles, write_rows
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.section import Section

PREFIX = "rows."  # among the settings of a recipe


class RowChanges(Section):
    """What a study changes in its rows. Rows are of one kind if they have the same task or, in a file without tasks,
    the same component; the order of the kinds is drawn by seed."""

    kinds: int | None = Field(
        None, ge=1, description="Only so many kinds, in as many training rows as the smallest of all kinds has."
    )
    zipf: float = Field(
        0, ge=0, le=4, description="The i-th kind has i^-zipf times as many training rows as the first; 0: all as many."
    )
    exchanged: float = Field(
        0, ge=0, le=1, description="Share of the training rows whose answers are exchanged among them."
    )
    shots: int = Field(
        0, ge=0, le=8, description="So many training rows of its kind, solved, come before each row that is measured."
    )


def changed_rows(files: RowFiles, changes: RowChanges, model: str, seed: int) -> RowFiles:
    """One seed's rows after the changes, written once; the rows themselves where nothing is changed.

    Args:
        model: the base model, which components may be found with.

    Raises:
        DatasetError: the rows are too few, or of too few kinds.
    """
    if changes == RowChanges():
        return files
    slug = "-".join(f"{name}-{value}" for name, value in changes.model_dump(exclude_defaults=True).items())
    folder = files.train.parent / slug
    changed = RowFiles(*(folder / f"{part}.jsonl" for part in PARTS))
    if changed.report.exists():  # the last one to be written
        return changed
    draws = np.random.default_rng(seed)
    train, tune, report = (list(read_dataset(str(path)).examples) for path in (files.train, files.tune, files.report))
    if changes.kinds or changes.zipf:
        train_kinds, tune_kinds, report_kinds = _kinds(files.train, model, train, tune, report)
        order = draws.permutation(sorted(set(train_kinds))).tolist()
        used = order[: changes.kinds]
        if changes.kinds and len(order) < changes.kinds:
            raise DatasetError(f"rows.kinds is {changes.kinds}, but the rows are of {len(order)} kinds. Lower it.")
        counts = _counts([train_kinds.count(kind) for kind in order], changes)
        drawn = [
            i
            for kind, count in zip(used, counts, strict=True)
            for i in draws.permutation([i for i, own in enumerate(train_kinds) if own == kind])[:count].tolist()
        ]
        train = [train[i] for i in sorted(drawn)]
        tune, report = (
            [row for row, kind in zip(rows, kinds, strict=True) if kind in used]
            for rows, kinds in ((tune, tune_kinds), (report, report_kinds))
        )
    if changes.exchanged:
        train = _with_exchanged_answers(train, changes.exchanged, draws)
    if changes.shots:
        train_kinds, *kinds = _kinds(files.train, model, train, tune, report)
        by_kind: dict[str, list[Example]] = defaultdict(list)
        for row, kind in zip(train, train_kinds, strict=True):
            by_kind[kind].append(row)
        tune, report = (
            [_after_shots(row, by_kind[kind], changes.shots, draws) for row, kind in zip(rows, own, strict=True)]
            for rows, own in zip((tune, report), kinds, strict=True)
        )
    if not (train and tune and report):
        raise DatasetError(f"Too few rows remain of {slug.replace('-', ' ')}. Give more rows.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, rows in zip((changed.train, changed.tune, changed.report), (train, tune, report), strict=True):
        write_rows(path, rows)
    return changed


def _kinds(file: Path, model: str, *parts: list[Example]) -> list[list[str]]:
    """The kind of each row of each part."""
    if all(row.task for rows in parts for row in rows):
        return [[row.task or "" for row in rows] for rows in parts]
    recipe = parse_recipe({"model": model, "data": {"train": str(file)}})
    found = []
    for rows in parts:
        labels, _, why = label_rows(recipe, rows)
        if labels is None:
            raise DatasetError(f"The rows name no task, and their components can't be found: {why}")
        found.append([str(label) for label in labels])
    return found


def _counts(sizes: Sequence[int], changes: RowChanges) -> list[int]:
    """The number of training rows of each kind that is used, from the sizes of all, in the kinds' order."""
    shares = np.arange(1.0, (changes.kinds or len(sizes)) + 1) ** -changes.zipf
    shares /= shares.sum()
    most = min(sizes) if changes.kinds else min(size / share for size, share in zip(sizes, shares, strict=True))
    return [max(1, int(most * share + 1e-9)) for share in shares]


def _with_exchanged_answers(rows: list[Example], share: float, draws: np.random.Generator) -> list[Example]:
    """The rows, of which a share has each the answer of another one."""
    chosen = draws.permutation(len(rows))[: round(share * len(rows))].tolist()
    answers = [rows[i].messages[-1] for i in chosen]
    changed = list(rows)
    for i, answer in zip(chosen, [*answers[1:], *answers[:1]], strict=True):
        changed[i] = replace(rows[i], messages=(*rows[i].messages[:-1], answer))
    return changed


def _after_shots(row: Example, solved: list[Example], shots: int, draws: np.random.Generator) -> Example:
    """A row whose prompt begins with some rows of its kind and their answers, which are only read.

    Raises:
        DatasetError: there are too few, or they have no questions.
    """
    if len(solved) < shots:
        raise DatasetError(f"rows.shots is {shots}, but a kind has {len(solved)} training rows. Lower it.")
    chosen = [solved[i] for i in draws.permutation(len(solved))[:shots].tolist()]
    if any(len(example.messages) == 1 for example in [row, *chosen]):
        raise DatasetError(
            "rows.shots needs rows with questions and answers, and these have plain texts. Leave it out."
        )
    first = [message for message in row.messages[:1] if message["role"] == "system"]
    before = [message for example in chosen for message in example.messages if message["role"] != "system"]
    messages = (*first, *before, *row.messages[len(first) :])
    read = [i for i, message in enumerate(messages[: len(first) + len(before)]) if message["role"] == "assistant"]
    return replace(row, messages=messages, untaught=(*read, *(i + len(before) for i in row.untaught)))
