"""A sample of a curve: all of a short one; of a long one its ends and its extremes, however its points came."""

import math
import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from hydralora.runs.downsampling import TAIL, Downsampling, Placed

MOST = 24
Point = dict[str, float | None]
VALUES = (None, math.nan, math.inf, -math.inf, 0.0, 1.0)


def curve_of(length: int, seed: int) -> list[Point]:
    """Points of up to three curves, some of them without a value, or with equal ones."""
    draw = random.Random(seed)
    names, usual = draw.choice(["a", "abc"]), draw.choice([0.5, 0.9, 1.0])

    def value() -> float | None:
        return draw.gauss(0, 1) if draw.random() < usual else draw.choice(VALUES)

    return [{name: value() for name in names if draw.random() < usual} for _ in range(length)]


points = st.builds(curve_of, st.integers(0, 600), st.integers(0, 2**32))


def sample(curve: list[Point]) -> Downsampling[Point]:
    made = Downsampling[Point](lambda point: point, MOST)
    for point in curve:
        made.add(point)
    return made


def places(made: Downsampling[Point]) -> list[int]:
    return [placed.place for placed in made.kept()]


def known(curve: list[Point], name: str) -> list[float]:
    values = (point.get(name) for point in curve)
    return [each for each in values if each is not None and not math.isnan(each)]


@given(points)
@settings(max_examples=150, deadline=None)
def test_a_sample_is_small_and_keeps_ends_and_extremes(curve: list[Point]) -> None:
    kept = sample(curve).kept()
    assert [placed.place for placed in kept] == sorted({placed.place for placed in kept})
    assert all(placed.point is curve[placed.place] for placed in kept)
    assert len(kept) <= MOST + 9 + TAIL + 1  # and the newest bucket's: of 3 curves the extremes and one without a value
    sampled = [placed.point for placed in kept]
    ends = [*range(len(curve))[:1], *range(len(curve))[-TAIL:]]
    assert set(ends) <= {placed.place for placed in kept}
    for name in "abc":
        assert [f(known(sampled, name), default=0) for f in (min, max)] == [
            f(known(curve, name), default=0) for f in (min, max)
        ]
        unknown = [any(name in point and point[name] is None for point in each) for each in (sampled, curve)]
        assert unknown[0] or not unknown[1] or known_as_none(curve, name)


def known_as_none(curve: list[Point], name: str) -> bool:
    """Whether it also has values that are no numbers, of which the first stands for all without a value."""
    return any((each := point.get(name)) is not None and math.isnan(each) for point in curve)


@given(points.map(lambda curve: curve[: MOST + 1]))
@settings(max_examples=30, deadline=None)
def test_of_a_short_curve_every_point_is_kept(curve: list[Point]) -> None:
    assert places(sample(curve)) == list(range(len(curve)))


@given(points, st.lists(st.integers(0, 400), max_size=4).map(sorted))
@settings(max_examples=150, deadline=None)
def test_a_sample_that_goes_on_from_what_was_kept_is_the_same(curve: list[Point], breaks: list[int]) -> None:
    made, begun = Downsampling[Point](lambda point: point, MOST), 0
    for end in [*breaks, len(curve)]:
        for point in curve[begun:end]:
            made.add(point)
        begun = max(begun, min(end, len(curve)))
        resumed = Downsampling[Point](lambda point: point, MOST)
        resumed.restore(made.width, made.count, [Placed(*placed) for placed in made.kept()])
        made = resumed
    assert places(made) == places(sample(curve))


def test_every_part_of_a_long_curve_is_sampled() -> None:
    kept = places(sample([{"a": math.sin(i / 50)} for i in range(20_000)]))
    assert max(after - before for before, after in pairwise(kept)) < 20_000 / 6
