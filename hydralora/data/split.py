"""Held-out rows: a share of the training file, or a second file."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hydralora.data.dataset import Dataset
from hydralora.data.examples import Example
from hydralora.errors import DatasetError

IN_TRAINING = "in-training"  # the kind of problem of a held-out row that is also a training row


@dataclass(frozen=True)
class Split:
    """Training and held-out rows.

    Attributes:
        by_kind: how many rows of the files were left out, by kind of problem.
        notes: how many are used, but read otherwise than they are written, by kind.
        shared: numbers of the second file's rows that are also training rows; they are left out of the held-out ones,
            since they would make every measurement too good.
    """

    train: list[Example]
    heldout: list[Example]
    by_kind: dict[str, int]
    notes: dict[str, int]
    shared: tuple[int, ...] = ()


def split(dataset: Dataset, fraction: float, seed: int, groups: Sequence[object] | None = None) -> Split:
    """Hold out a share of a dataset's rows, drawn by seed.

    Args:
        groups: the group of each row, such as its task or component; equal shares of each are held out. A group's
            only row stays in the training rows.

    Raises:
        DatasetError: there are too few rows.
    """
    from sklearn.model_selection import train_test_split

    rows = range(len(dataset.examples))
    count = max(1, round(fraction * len(rows)))
    if count >= len(rows):
        raise DatasetError(
            f"{dataset.name}: {len(rows)} row(s) can't be split into training and held-out rows. "
            "Add rows, or give a second file as data.eval."
        )
    sizes = Counter(groups or ())
    drawn = [i for i in rows if groups is None or sizes[groups[i]] > 1]
    strata = None if groups is None else [groups[i] for i in drawn]
    if strata and not len(set(strata)) <= count < len(drawn):
        raise DatasetError(
            f"{dataset.name}: {count} held-out rows can't be drawn from each of {len(set(strata))} groups. "
            "Raise data.eval_fraction, or set data.stratify to none."
        )
    heldout_indices = set(train_test_split(drawn, test_size=count, random_state=seed, stratify=strata)[1])
    train: list[Example] = []
    heldout: list[Example] = []
    for i, example in enumerate(dataset.examples):
        (heldout if i in heldout_indices else train).append(example)
    return Split(train, heldout, dataset.by_kind, _note_counts(dataset))


def split_by_file(train: Dataset, heldout: Dataset) -> Split:
    """Hold out a second file's rows except those that are also training rows, ignoring case and spaces.

    Raises:
        DatasetError: no held-out row remains.
    """
    train_digests = {_normalised(example) for example in train.examples}
    unshared: list[Example] = []
    shared: list[int] = []
    for example in heldout.examples:
        if _normalised(example) in train_digests:
            shared.append(example.row)
        else:
            unshared.append(example)
    if not unshared:
        raise DatasetError(
            f"{heldout.name}: each of its {len(shared)} rows is also in {train.name}, so it can't measure anything. "
            "Give other rows as data.eval, or leave it out to hold out training rows."
        )
    by_kind = Counter(train.by_kind) + Counter(heldout.by_kind) + Counter({IN_TRAINING: len(shared)})
    notes = Counter(_note_counts(train)) + Counter(_note_counts(heldout))
    return Split(list(train.examples), unshared, dict(by_kind), dict(notes), tuple(shared))


def _note_counts(dataset: Dataset) -> dict[str, int]:
    return {kind: note.count for kind, note in dataset.notes.items()}


def _normalised(example: Example) -> bytes:
    return hashlib.blake2b(" ".join(example.everything.lower().split()).encode(), digest_size=8).digest()
