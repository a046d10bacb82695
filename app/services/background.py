"""Long work in a thread, so that a page can show how far it is, and stop it."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from hydralora.data.progress import OnProgress

from .processes import EVERY

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How much of the work is done, of all there is; (0, 1) before that is known."""

    done: int = 0
    total: int = 1


@dataclass(frozen=True)
class Done(Generic[T]):
    """The end of the work, with its result."""

    value: T


class _StoppedError(Exception):
    """Raised in the work where nobody waits for it any more."""


def in_background(work: Callable[[OnProgress], T]) -> Generator[Progress | Done[T], None, None]:
    """Do `work`, yielding how far it is now and then, and Done at the end; what it raises is raised here.

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
