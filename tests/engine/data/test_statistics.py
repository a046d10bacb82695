"""What a dataset is to the model: figures that follow from its rows' tokens."""

from typing import Any

import pytest

from hydralora import DatasetError
from hydralora.data.encoding import IGNORED, encode
from hydralora.data.examples import Example
from hydralora.data.statistics import token_statistics


def example(row: int, question: str, answer: str) -> Example:
    return Example(row, ({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


EXAMPLES = [example(i, "a" * (i % 90), "b" * (i % 7 + 1)) for i in range(1, 201)]


def test_figures_are_those_of_the_encoded_rows(tokenizer: Any) -> None:
    rows = [encode(tokenizer, each)[0] for each in EXAMPLES]
    lengths = sorted(len(row.input_ids) for row in rows)
    found = token_statistics(tokenizer, EXAMPLES, max_length=10_000, batch_size=4)
    assert (found.rows, found.sampled, found.problems) == (200, 200, [])
    assert (found.total, found.longest) == (sum(lengths), lengths[-1])
    assert found.mean == pytest.approx(sum(lengths) / 200)
    assert lengths[99] <= found.median <= lengths[100]
    learnt = sum(label != IGNORED for row in rows for label in row.labels)
    assert found.answer_share == pytest.approx(learnt / sum(lengths))
    assert 0 <= found.padding < found.padding_random < 1
    assert sum(count for _, _, count in found.histogram) == 200
    for low, below, count in found.histogram:
        assert count == sum(low <= length < below for length in lengths)


def test_rows_beyond_the_limit_are_named(tokenizer: Any) -> None:
    limit = len(encode(tokenizer, example(0, "a" * 50, "b"))[0].input_ids)
    found = token_statistics(tokenizer, EXAMPLES, limit, batch_size=4)
    long = {each.row for each in EXAMPLES if len(encode(tokenizer, each)[0].input_ids) > limit}
    lost = {
        each.row
        for each in EXAMPLES
        if set(encode(tokenizer, each)[0].labels[:limit]) == {IGNORED} and each.row in long
    }
    assert {row for row, flaw in found.problems} == long
    assert {row for row, flaw in found.problems if flaw.kind == "answer-lost"} == lost != set()
    assert found.by_kind == {"too-long": len(long - lost), "answer-lost": len(lost)}


def test_many_rows_are_sampled_and_it_is_said(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.data.statistics.SAMPLE", 60)
    found = token_statistics(tokenizer, EXAMPLES, 512, batch_size=4)
    assert (found.rows, found.sampled) == (200, 50)


def test_rows_of_one_length(tokenizer: Any) -> None:
    found = token_statistics(tokenizer, [example(1, "a", "b")] * 5, 512, batch_size=2)
    assert [count for _, _, count in found.histogram] == [5]
    assert found.padding == found.padding_random == 0


def test_nothing_to_measure_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(DatasetError):
        token_statistics(tokenizer, [], 512, batch_size=2)
