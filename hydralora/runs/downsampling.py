"""Downsampling of curves: of each bucket of points, those with the least and the greatest values.

This is the min/max method, as it is used to draw time series (Jugel et al., M4, VLDB 2014, section 3): a spike stays,
however long the curve is, and only points that were measured are drawn.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Values = Callable[[T], Mapping[str, float | None]]  # of a point, by the curve that each belongs to
TAIL = 16  # newest points that are kept whatever their values
BUFFER = 256  # points of a bucket that are looked at together


class Placed(NamedTuple, Generic[T]):
    """A point with its place among all points, from 0."""

    place: int
    point: T


def extremes(points: Sequence[T], values: Values[T]) -> list[T]:
    """The points with the least and the greatest value of each curve, and the first without a value; in order.

    Of equal ones the first is taken; of points without any curve, the first. So the extremes of some points' extremes
    and further points are those of all of them.
    """
    least: dict[str, tuple[float, int]] = {}
    greatest: dict[str, tuple[float, int]] = {}
    unknown: dict[str, int] = {}
    for place, point in enumerate(points):
        for name, value in values(point).items():
            if value is None or value != value:
                unknown.setdefault(name, place)
            elif name not in least:
                least[name] = greatest[name] = value, place
            elif value < least[name][0]:
                least[name] = value, place
            elif value > greatest[name][0]:
                greatest[name] = value, place
    places = {place for _, place in (*least.values(), *greatest.values())} | set(unknown.values())
    return [points[place] for place in sorted(places)] or list(points[:1])


class Downsampling(Generic[T]):
    """Points that come one by one, of which about `most` are kept: up to there all of them, then each bucket's
    extremes, the first point and the last TAIL.

    A bucket has `width` points; the width doubles whenever more would be kept. What is kept depends on the points
    alone, not on how they came.
    """

    def __init__(self, values: Values[T], most: int) -> None:
        self._values, self._most = values, most
        self.width, self.count = 1, 0
        self._first: list[Placed[T]] = []
        self._closed: list[Placed[T]] = []  # the extremes of all buckets but the newest one
        self._open: list[Placed[T]] = []  # points of the newest bucket, its extremes among them
        self._full = BUFFER  # points at which those that are no extremes leave the newest bucket
        self._tail: deque[Placed[T]] = deque(maxlen=TAIL)

    def restore(self, width: int, count: int, points: Iterable[Placed[T]]) -> None:
        """Go on from what another one kept, whose width and count these are."""
        self.width, self.count = width, count
        points = list(points)
        self._first, self._tail = points[:1], deque(points, maxlen=TAIL)
        newest = (count - 1) // width
        self._open = [point for point in points if point.place // width == newest]
        self._closed = self._extremes_by_bucket(points[: len(points) - len(self._open)])

    def add(self, point: T) -> None:
        self.add_at(self.count, point)

    def add_at(self, place: int, point: T) -> None:
        """Add a point and leave out those before it, which must be neither extremes of a bucket nor the last TAIL."""
        placed = Placed(place, point)
        self.count = place + 1
        self._tail.append(placed)
        if not self._first:
            self._first = [placed]
        if self._open and self._open[0].place // self.width != place // self.width:
            self._close()
        self._open.append(placed)
        if len(self._open) >= self._full:
            self._open = self._extremes(self._open)
            self._full = max(BUFFER, 2 * len(self._open))

    def kept(self) -> list[Placed[T]]:
        """The points that are kept, in order."""
        points = {point.place: point for point in (*self._first, *self._closed, *self._extremes(self._open))}
        points |= {point.place: point for point in self._tail}
        return [points[place] for place in sorted(points)]

    def _close(self) -> None:
        self._closed += self._extremes(self._open)
        self._open, self._full = [], BUFFER
        while len(self._closed) > self._most and self.width < self.count:
            self.width *= 2
            self._closed = self._extremes_by_bucket(self._closed)
        if self._closed and self._closed[-1].place // self.width == (self.count - 1) // self.width:
            # A wider bucket is not full yet: it takes the next points as well.
            number = (self.count - 1) // self.width
            self._open = [point for point in self._closed if point.place // self.width == number]
            self._closed = self._closed[: len(self._closed) - len(self._open)]

    def _extremes(self, points: Sequence[Placed[T]]) -> list[Placed[T]]:
        return extremes(points, lambda placed: self._values(placed.point)) if len(points) > 1 else list(points)

    def _extremes_by_bucket(self, points: Sequence[Placed[T]]) -> list[Placed[T]]:
        buckets: dict[int, list[Placed[T]]] = {}
        for point in points:
            buckets.setdefault(point.place // self.width, []).append(point)
        return [point for bucket in buckets.values() for point in self._extremes(bucket)]
