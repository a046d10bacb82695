"""Batches of rows of similar length, in an order that is a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from hydralora.data.encoding import IGNORED, Encoded

GROUP = 16  # batches; rows are sorted by length inside groups of this many, so that order stays random across them


def batch_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every row's index once, in batches of similar length, in random order."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    step = batch_size * GROUP
    groups = [sorted(order[i : i + step], key=lambda row: lengths[row]) for i in range(0, len(order), step)]
    batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


class LengthGroupedBatches(Sampler[list[int]]):
    """The batches of one epoch after another; `set_epoch` chooses which.

    Several processes share batches of `batch_size` rows for each of them: process `rank` takes every `processes`-th
    row, so that all have rows of similar length. In an epoch's last, smaller batch a process may get an empty list.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, processes: int = 1, rank: int = 0) -> None:
        self.lengths = lengths
        self.batch_size = batch_size * processes  # rows of all processes
        self.seed = seed
        self.processes = processes
        self.rank = rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in batch_order(self.lengths, self.batch_size, self.seed, self.epoch):
            yield batch[self.rank :: self.processes]


def collate(rows: Sequence[Encoded], pad_token_id: int) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels, each (batch, tokens), padded on the right; heads (batch,) if rows have one.

    Also where the outputs are that predict the labels, and those labels (`answers_in`): a device that had to find them
    would keep the program waiting.

    No rows give a batch without labels, (1, 2): a process whose share is empty has a forward pass like the others,
    and neither loss nor gradient.
    """
    if not rows:
        labels = torch.full((1, 2), IGNORED)
        mask = torch.ones_like(labels)  # attention over no token may give NaN
        ids = torch.full_like(labels, pad_token_id)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **answers_in(labels)}
    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[i, :length] = torch.tensor(row.input_ids)
        attention_mask[i, :length] = 1
        labels[i, :length] = torch.tensor(row.labels)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, **answers_in(labels)}
    heads = [row.head for row in rows if row.head is not None]
    return batch | ({"heads": torch.tensor(heads)} if len(heads) == len(rows) else {})


def answers_in(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of labels (batch, tokens): answers, the numbers of the outputs that predict one, row by row; and targets.

    Each (answer tokens,). Output t of row b has the number b * tokens + t, and predicts token t + 1.
    """
    rows, columns = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return {"answers": rows * labels.shape[1] + columns, "targets": labels[rows, columns + 1]}
