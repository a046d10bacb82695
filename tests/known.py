"""What a test knows to be there, of what may be missing."""

from typing import TypeVar

from hydralora.runs.scores import Score

T = TypeVar("T")


def known(value: T | None) -> T:
    """The value, which is there."""
    assert value is not None
    return value


def loss_of(scores: Score | None) -> float:
    """The loss of a measurement that was made, and is a number."""
    return known(known(scores).loss)
