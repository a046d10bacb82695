"""Long work in a thread, so that a page can show how far it is, and stop it."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hydralora.data.progress import OnProgress

from .processes import EVERY

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """The end of the work, with its result."""

    value: T


class _Stopped(Exception):
    """Raised in the work where nobody waits for it any more."""


def in_background(work: Callable[[OnProgress], T]) -> Generator[tuple[int, int] | Done[T]]:
    """Do `work`, yielding (done, total) now and then, and Done at the end; what it raises is raised here.

    Args:
        work: gets a function that it calls with what is done and all there is to do. Closing the iterator makes that
            function raise, which ends the work.
    """
    latest = (0, 1)
    stop = threading.Event()

    def on_progress(done: int, total: int) -> None:
        nonlocal latest
        latest = (done, total)
        if stop.is_set():
            raise _Stopped

    pool = ThreadPoolExecutor(1, thread_name_prefix="work")
    future: Any = pool.submit(work, on_progress)
    try:
        while not wait([future], EVERY).done:
            yield latest
        yield Done(future.result())
    finally:
        stop.set()
        pool.shutdown(wait=False)
