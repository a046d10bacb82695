"""Token statistics of a dataset: tokens of its rows, the share of answers, and the share of padding."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hydralora.data.batches import batch_order
from hydralora.data.encoding import IGNORED, EncodedRows, encode_all, fit
from hydralora.data.examples import Example
from hydralora.data.problems import RowError
from hydralora.models.types import Tokenizer

SAMPLE = 5000  # rows at most; tokenising a gigabyte takes minutes
CHARACTERS = 20_000_000  # of the sampled rows at most
BINS = 40
FAR = 1.5  # times the 99th percentile, from which a row has no bar of its own


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of the sampled rows, in tokens and before any row is cut.

    Attributes:
        sampled: number of sampled rows, spread evenly over `rows`.
        problems: rows that the model's template rejects, and rows longer than max_length, by row number.
        answer_share: share of the tokens that are trained on.
        padding: share of padding in batches of similar length; `padding_random` in batches in random order.
        histogram: [(from, below, rows of such a length)], in tokens.
    """

    rows: int
    sampled: int
    max_length: int
    problems: list[tuple[int, RowError]]
    total: int
    mean: float
    median: float
    p95: float
    longest: int
    answer_share: float
    padding: float
    padding_random: float
    histogram: list[tuple[int, int, int]]

    @property
    def by_kind(self) -> dict[str, int]:
        return dict(Counter(flaw.kind for _, flaw in self.problems))

    def describe(self) -> dict[str, Any]:
        """As plain values, the problems counted by kind."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "problems"}
        return values | {"by_kind": self.by_kind, "histogram": [list(bar) for bar in self.histogram]}


def token_statistics(
    tokenizer: Tokenizer, examples: Sequence[Example], max_length: int, batch_size: int, seed: int = 0
) -> TokenStatistics:
    """Measure rows as a run would encode them.

    Raises:
        DatasetError: the model's chat template refuses every row.
    """
    step = max(1, -(-len(examples) // SAMPLE))
    sample = examples[::step]
    while len(sample) > 1 and sum(len(example.everything) for example in sample) > CHARACTERS:
        sample = sample[::2]
    encoded = encode_all(tokenizer, sample, max_length=sys.maxsize)
    lengths = np.array([len(row.input_ids) for row in encoded.rows])
    answers = sum(label != IGNORED for row in encoded.rows for label in row.labels)
    cut_lengths, problems = _fitted(encoded, max_length)
    edges = _edges(lengths)
    counts, _ = np.histogram(lengths, bins=edges)
    return TokenStatistics(
        rows=len(examples),
        sampled=len(sample),
        max_length=max_length,
        problems=problems,
        total=int(lengths.sum()),
        mean=float(lengths.mean()),
        median=float(np.median(lengths)),
        p95=float(np.percentile(lengths, 95)),
        longest=int(lengths.max()),
        answer_share=answers / int(lengths.sum()),
        padding=_padding(cut_lengths, batch_order(cut_lengths.tolist(), batch_size, seed, 0)),
        padding_random=_padding(cut_lengths, _random_order(len(cut_lengths), batch_size, seed)),
        histogram=[(int(a), int(b), int(count)) for a, b, count in zip(edges, edges[1:], counts, strict=False)],
    )


def _edges(lengths: np.ndarray) -> np.ndarray:
    """Edges of the histogram's bars, all of one width. The last bar alone is wider where few rows are far longer than
    the others: those would press all others into a few bars."""
    longest, most = int(lengths.max()), int(np.percentile(lengths, 99))
    end = most if longest > FAR * most else longest
    width = -(-(end - int(lengths.min()) + 1) // BINS)
    edges = np.arange(lengths.min(), end + width + 1, width)
    return edges if edges[-1] > longest else np.append(edges, longest + 1)


def _fitted(encoded: EncodedRows, max_length: int) -> tuple[np.ndarray, list[tuple[int, RowError]]]:
    """Lengths of the rows as cut to max_length, (rows,), and every problem, in row order."""
    lengths: list[int] = []
    problems = list(encoded.problems)
    for whole in encoded.rows:
        try:
            row, flaw = fit(whole, max_length, "cut")
            lengths.append(len(row.input_ids))
        except RowError as unusable:
            flaw = unusable
        if flaw:
            problems.append((whole.example.row, flaw))
    return np.array(lengths), sorted(problems, key=lambda problem: problem[0])


def _random_order(rows: int, batch_size: int, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(rows).tolist()
    return [order[i : i + batch_size] for i in range(0, rows, batch_size)]


def _padding(lengths: np.ndarray, batches: list[list[int]]) -> float:
    """Share of padding where every batch is as wide as its longest row."""
    wide = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - int(lengths.sum()) / wide if wide else 0.0
