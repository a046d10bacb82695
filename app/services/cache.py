"""Results computed once for all sessions."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True)
class ResultKind(Generic[T]):
    """A kind of results.

    Attributes:
        keep: how many are kept; few if one may take many megabytes.
        of_adapter: whether they are large and belong to a run's adapter; their key then begins with the run's id.
    """

    name: str
    keep: int = 32
    of_adapter: bool = False


Key = tuple[ResultKind[object], tuple[Hashable, ...]]


class ResultCache:
    """The last few results of every kind, each computed once."""

    def __init__(self) -> None:
        self._results: OrderedDict[Key, object] = OrderedDict()
        self._computing: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()  # guards both, never held while computing

    def has(self, kind: ResultKind[T], *key: Hashable) -> bool:
        """Whether a result is cached."""
        with self._lock:
            return (kind, key) in self._results

    def get(self, kind: ResultKind[T], *key: Hashable) -> T | None:
        """A cached result, or None."""
        with self._lock:
            return cast(T | None, self._results.get((cast(ResultKind[object], kind), key)))

    def remember(self, kind: ResultKind[T], *key: Hashable, compute: Callable[[], T]) -> T:
        """A result, computed if it is not cached; concurrent callers wait for it."""
        place = cast(ResultKind[object], kind), key
        with self._lock:
            computing = self._computing.setdefault(place, threading.Lock())
        with computing:
            with self._lock:
                if place in self._results:
                    self._results.move_to_end(place)
                    return cast(T, self._results[place])
            result = compute()
            with self._lock:
                self._results[place] = result
                alike = [other for other in self._results if other[0] == kind]
                for old in alike[: -kind.keep]:
                    self._forget(old)
            return result

    def release(self, run_id: str | None = None) -> None:
        """Drop the large results of a run's adapter, or of every adapter."""
        with self._lock:
            for key in [key for key in self._results if key[0].of_adapter and run_id in (None, key[1][0])]:
                self._forget(key)

    def _forget(self, key: Key) -> None:
        del self._results[key]
        self._computing.pop(key, None)
