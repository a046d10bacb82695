"""The order of rows: a pure function of seed and epoch."""

from typing import Any

import pytest
import torch

from hydralora.data.batches import LengthGroupedBatches, batch_order, collate
from hydralora.data.encoding import IGNORED, Encoded
from hydralora.data.examples import Example

LENGTHS = [(i * 37) % 101 + 1 for i in range(203)]


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    first = batch_order(LENGTHS, 8, seed=3, epoch=2)
    torch.rand(5)  # the global generator plays no part
    assert batch_order(LENGTHS, 8, seed=3, epoch=2) == first
    assert batch_order(LENGTHS, 8, seed=3, epoch=1) != first
    assert batch_order(LENGTHS, 8, seed=4, epoch=2) != first


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 203])
def test_every_row_comes_once(rows: int, epoch: int) -> None:
    batches = batch_order(LENGTHS[:rows], 8, seed=0, epoch=epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    assert max(map(len, batches)) <= 8
    assert len(LengthGroupedBatches(LENGTHS[:rows], 8, seed=0)) == len(batches)


def test_rows_of_like_length_come_together() -> None:
    def padding(batches: list[list[int]]) -> int:
        return sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches) - sum(LENGTHS)

    order = torch.randperm(len(LENGTHS), generator=torch.Generator().manual_seed(0)).tolist()
    at_random = [order[i : i + 8] for i in range(0, len(order), 8)]
    assert padding(batch_order(LENGTHS, 8, seed=0, epoch=0)) < padding(at_random) / 3


def test_the_sampler_follows_the_epoch() -> None:
    sampler = LengthGroupedBatches(LENGTHS, 8, seed=5)
    assert list(sampler) == batch_order(LENGTHS, 8, 5, 0)
    sampler.set_epoch(3)
    assert list(sampler) == batch_order(LENGTHS, 8, 5, 3)


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("rows", [1, 9, 200, 203])
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_processes_share_the_batches_that_one_would_have(processes: int, rows: int, epoch: int) -> None:
    samplers = [LengthGroupedBatches(LENGTHS[:rows], 4, 5, processes, rank) for rank in range(processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    shares = list(zip(*samplers, strict=True))
    whole = batch_order(LENGTHS[:rows], 4 * processes, 5, epoch)
    assert [sorted(row for share in batch for row in share) for batch in shares] == [sorted(batch) for batch in whole]
    assert sorted(row for batch in shares for share in batch for row in share) == list(range(rows))
    assert {len(sampler) for sampler in samplers} == {len(whole)}
    for batch in shares:
        sizes = [len(share) for share in batch]
        assert max(sizes) <= 4
        assert sizes == sorted(sizes, reverse=True)  # the first is never without rows
        assert max(sizes) - min(sizes) <= 1


def test_processes_get_rows_of_like_length() -> None:
    samplers = [LengthGroupedBatches(LENGTHS, 4, 5, 2, rank) for rank in range(2)]
    widths = [[max(LENGTHS[row] for row in share) for share in sampler if len(share) == 4] for sampler in samplers]
    differences = [abs(one - other) for one, other in zip(*widths, strict=False)]
    assert max(differences) < 10  # rows have 1 to 101 tokens


def test_a_share_without_rows_has_no_labels() -> None:
    batch = collate([], pad_token_id=3)
    shapes = {name: tuple(values.shape) for name, values in batch.items()}
    assert shapes == dict.fromkeys(("input_ids", "attention_mask", "labels"), (1, 2)) | {
        "answers": (0,),
        "targets": (0,),
    }
    assert bool((batch["labels"] == IGNORED).all())
    assert bool(batch["attention_mask"].all())


def test_rows_are_padded_on_the_right() -> None:
    def row(*ids: int) -> Any:
        return Encoded(list(ids), [IGNORED, *ids[1:]], Example(1, ()))

    batch = collate([row(5, 6, 7), row(8, 9)], pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
    assert batch["answers"].tolist() == [0, 1, 3]
    assert batch["targets"].tolist() == [6, 7, 9]
