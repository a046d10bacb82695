"""Long work in a thread: a page can show its progress and stop it."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from hydralora.data.progress import OnProgress

from .processes import EVERY

T = TypeVar("T")
MESSAGE_EVERY = 5  # looks between two messages of `seconds_of`


@dataclass(frozen=True)
class Progress:
    """Work done and work in total; (0, 1) until known."""

    done: int = 0
    total: int = 1


@dataclass(frozen=True)
class Done(Generic[T]):
    """The end of the work, with its result."""

    value: T


class _StoppedError(Exception):
    """Raised inside the work when nobody waits for its result."""


def in_background(work: Callable[[OnProgress], T]) -> Generator[Progress | Done[T], None, None]:
    """Run `work`, yielding its progress at intervals and Done at the end; its errors are raised here.

    Args:
        work: gets an `OnProgress`. Closing the iterator makes that raise, which ends the work.
    """
    latest = Progress()
    stop = threading.Event()

    def on_progress(done: int, total: int) -> None:
        nonlocal latest
        latest = Progress(done, total)
        if stop.is_set():
            raise _StoppedError

    pool = ThreadPoolExecutor(1, thread_name_prefix="work")
    future: Future[T] = pool.submit(work, on_progress)
    try:
        while not wait([future], EVERY).done:
            yield latest
        yield Done(future.result())
    finally:
        stop.set()
        pool.shutdown(wait=False)


def seconds_of(work: Callable[[], object]) -> Iterator[float]:
    """Run `work` in a thread, yielding the seconds that it has taken, at once and then every few looks, until it ends.

    Its errors are raised here.
    """
    for ticks, step in enumerate(in_background(lambda on_progress: work())):
        if not isinstance(step, Done) and ticks % MESSAGE_EVERY == 0:
            yield ticks * EVERY
