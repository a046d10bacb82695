"""Contestants take turns; results are ratios within each round, never seconds alone."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OnRound = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Rounds:
    """The scores of every contestant in every round, in seconds or tokens/s, in the same order."""

    scores: Mapping[str, Sequence[float]]

    def ratio(self, mine: str, rival: str) -> dict[str, Any]:
        """Mine / rival's, paired by round: median, 10th and 90th percentile, number of rounds."""
        ratios = np.array(self.scores[mine]) / np.array(self.scores[rival])
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        return {"median": float(middle), "p10": float(low), "p90": float(high), "n": len(ratios)}


def take_turns(
    contestants: Mapping[str, Callable[[int], float | None]], rounds: int, on_round: Callable[[int, int], None]
) -> Rounds:
    """Give every contestant one turn in each round, with a rotating order.

    A contestant gets the round's number, or -1 for a warm-up that isn't counted. It returns its score; None means
    the seconds that it took.
    """
    scores: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in contestants.values():
        turn(-1)
    names = list(contestants)
    for number in range(rounds):
        on_round(number + 1, rounds)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            score = contestants[name](number)
            scores[name].append(time.perf_counter() - start if score is None else score)
    return Rounds(scores)
