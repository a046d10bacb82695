"""Arms compared: differences with intervals, and tests, paired by seed and row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hydralora.runs.scores import RowScores

DRAWS = 2000
LEVEL = 0.95
SIGNIFICANT = 1 - LEVEL


@dataclass(frozen=True)
class Paired:
    """What two runs of one seed measured on the same rows: arrays (rows,).

    A measurement is a ratio of sums: a loss is the rows' summed losses per token, exact match their hits per row.

    Attributes:
        rows: their numbers.
        one, other: the numerators of the two runs.
        weights: the denominators, which are the same for both.
    """

    rows: NDArray[np.int64]
    one: NDArray[np.float64]
    other: NDArray[np.float64]
    weights: NDArray[np.float64]

    def difference(self) -> float:
        return float((self.one - self.other).sum() / self.weights.sum())


@dataclass(frozen=True)
class Difference:
    """A difference of two arms over seeds.

    Attributes:
        mean: of the seeds' differences.
        low, high: of its 95 % interval; None where there are too few rows or seeds.
        p: of a paired t-test over the seeds; None for fewer than two seeds.
        seeds: how many there are.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int

    def apart(self, adjusted: float | None) -> bool:
        """Whether the arms differ: the interval leaves out 0, and so does the test, corrected for the other arms."""
        if self.low is None or self.high is None or adjusted is None:
            return False
        return not self.low <= 0 <= self.high and adjusted < SIGNIFICANT


def paired_rows(one: RowScores, other: RowScores, measure: str) -> Paired | None:
    """What two runs measured on the rows that both have; None if that is not on each row, or there is none.

    Args:
        measure: loss or exact_match.
    """
    places = {row: i for i, row in enumerate(other.rows)}
    both = [(i, places[row]) for i, row in enumerate(one.rows) if row in places]
    if measure == "exact_match":
        ones, others = (np.array(scores.matched, dtype=float) for scores in (one, other))
        weights = np.ones(len(one.rows))
    elif measure == "loss":
        ones, others = (np.array(scores.losses, dtype=float) for scores in (one, other))  # None becomes NaN
        weights = np.array(one.tokens, dtype=float)
    else:
        return None
    if not both:
        return None
    mine, theirs = map(list, zip(*both, strict=True))
    paired = Paired(np.array(one.rows)[mine], ones[mine], others[theirs], weights[mine])
    return paired if np.isfinite(paired.difference()) else None


def difference(pairs: Sequence[Paired], seed: int = 0) -> Difference:
    """The mean difference over seeds, with an interval by a bootstrap of seeds and of rows.

    Seeds that measure the same rows share each draw of them: their errors are the same rows' errors.

    Args:
        pairs: one for each seed, at least one.
    """
    found = np.array([pair.difference() for pair in pairs])
    p = float(stats.ttest_1samp(found, 0.0).pvalue) if len(found) > 1 and np.ptp(found) > 0 else None
    draws = np.random.default_rng(seed)
    # (seeds, draws): each draw's difference on that seed's rows, drawn with replacement
    counts: dict[bytes, NDArray[np.int64]] = {}  # (draws, rows): how often each row is drawn
    for pair in pairs:
        count = len(pair.rows)
        counts.setdefault(pair.rows.tobytes(), draws.multinomial(count, np.full(count, 1 / count), size=DRAWS))
    by_seed = np.stack([_drawn(pair, counts[pair.rows.tobytes()]) for pair in pairs])
    chosen = draws.integers(len(pairs), size=(len(pairs), DRAWS))
    means = np.take_along_axis(by_seed, chosen, axis=0).mean(0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(found.mean()), float(low), float(high), p, len(pairs))


def difference_of_values(one: Sequence[float], other: Sequence[float]) -> Difference:
    """The same where a run has one value, such as its seconds: an interval by Student's t over the seeds."""
    found = np.array(one) - np.array(other)
    low = high = p = None
    if len(found) > 1 and np.ptp(found) > 0:
        test = stats.ttest_1samp(found, 0.0)
        low, high = map(float, test.confidence_interval(LEVEL))
        p = float(test.pvalue)
    return Difference(float(found.mean()), low, high, p, len(found))


def interval_of_mean(mean: float, sd: float | None, n: int) -> tuple[float, float] | None:
    """A mean's interval by Student's t; None for one value, which tells nothing about others."""
    if sd is None or n < 2:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / n**0.5
    return mean - half, mean + half


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979); what was not tested stays None."""
    tested = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _drawn(pair: Paired, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(draws,): the difference on rows drawn with replacement, from how often each is drawn."""
    drawn: NDArray[np.float64] = (counts @ (pair.one - pair.other)) / (counts @ pair.weights)
    return drawn
