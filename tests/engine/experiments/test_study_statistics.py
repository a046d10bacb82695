"""Differences of arms, with intervals and tests."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hydralora.experiments.studies.statistics import (
    Paired,
    difference,
    difference_of_values,
    holm,
    paired_rows,
)
from hydralora.runs.scores import RowScores

ROWS = np.arange(100)


def seeds(count: int, effect: float, by_seed: float, by_row: float, seed: int = 0) -> list[Paired]:
    """Runs whose loss differs by `effect` per token, with noise of seeds and rows; each seed has rows of its own."""
    draws = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        tokens: NDArray[np.float64] = draws.integers(3, 30, len(ROWS)).astype(float)
        base = draws.normal(1, 0.5, len(ROWS))
        own = effect + draws.normal(0, by_seed) + draws.normal(0, by_row, len(ROWS))
        pairs.append(Paired(ROWS + 1000 * i, (base + own) * tokens, base * tokens, tokens))
    return pairs


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    held = [
        found.low <= 0.1 <= found.high
        for trial in range(150)
        if (found := difference(seeds(5, 0.1, 0.02, 0.3, trial))) and found.low is not None and found.high is not None
    ]
    assert 0.88 <= np.mean(held) <= 1


def test_a_clear_difference_is_apart_and_noise_is_not() -> None:
    assert difference(seeds(5, 0.1, 0.01, 0.1)).apart(0.001)
    noise = [difference(seeds(3, 0.0, 0.02, 0.3, trial)) for trial in range(60)]
    assert np.mean([found.apart(found.p) for found in noise]) <= 0.1


def test_a_difference_turns_its_sign_with_the_arms_and_is_none_of_a_run_with_itself() -> None:
    pairs = seeds(4, 0.1, 0.02, 0.3)
    there = difference(pairs)
    back = difference([Paired(pair.rows, pair.other, pair.one, pair.weights) for pair in pairs])
    assert back.mean == pytest.approx(-there.mean)
    assert (back.low, back.high) == (pytest.approx(-there.high), pytest.approx(-there.low))  # type: ignore[operator]
    same = difference([Paired(pair.rows, pair.one, pair.one, pair.weights) for pair in pairs])
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, None)
    assert not same.apart(same.p)


def test_one_seed_has_an_interval_of_its_rows_but_no_test() -> None:
    found = difference(seeds(1, 0.1, 0.0, 0.3))
    assert found.p is None
    assert found.low is not None
    assert not found.apart(found.p)


def test_seeds_that_measure_the_same_rows_share_their_errors() -> None:
    """Five measurements of the same rows are no five times as many rows."""
    first = seeds(1, 0.1, 0.0, 0.3)[0]
    together = difference([first] * 5)
    other_rows = difference([Paired(first.rows + 1000 * i, first.one, first.other, first.weights) for i in range(5)])
    assert together.low is not None
    assert together.high is not None
    assert other_rows.low is not None
    assert other_rows.high is not None
    assert together.high - together.low > 1.4 * (other_rows.high - other_rows.low)


def test_the_difference_is_that_of_the_runs_losses() -> None:
    one = RowScores(rows=[1, 2, 4], losses=[2.0, 3.0, 9.0], tokens=[2, 3, 4], matched=[True, False, True])
    other = RowScores(rows=[2, 1, 3], losses=[6.0, 1.0, 8.0], tokens=[3, 2, 9], matched=[False, False, True])
    loss = paired_rows(one, other, "loss")
    assert loss
    assert loss.difference() == pytest.approx((2 + 3) / 5 - (1 + 6) / 5)  # over the rows that both have
    matched = paired_rows(one, other, "exact_match")
    assert matched
    assert matched.difference() == pytest.approx(0.5)
    assert paired_rows(one, other, "seconds") is None
    assert paired_rows(one.changed(losses=[None, 3.0, 9.0]), other, "loss") is None  # not a number
    assert paired_rows(one, other.changed(rows=[7, 8, 9]), "loss") is None


def test_values_of_runs_are_compared_by_students_t() -> None:
    found = difference_of_values([1.0, 1.2, 1.1], [2.0, 2.1, 2.3])
    assert found.mean == pytest.approx(-31 / 30)
    assert found.p == pytest.approx(1 - 31 / (31**2 + 2 * 7) ** 0.5, rel=1e-6)  # of two degrees of freedom
    assert found.low is not None
    assert found.low < found.mean
    assert difference_of_values([1.0], [2.0]).p is None


def test_p_values_are_corrected_as_holm_did() -> None:
    # The example of https://www.statsmodels.org's multipletests: each p times the number of those that are not smaller.
    assert holm([0.01, 0.04, None, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
