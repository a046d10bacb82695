"""Computations in separate processes: the page stays responsive, and a stop takes effect at once.

In a thread of the server they would hold Python's lock, for which every answer waits dozens of times.
"""

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import psutil

from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import HydraError, first_line
from hydralora.training.resources import is_out_of_memory

T = TypeVar("T")
EVERY = 0.2  # seconds between two checks
NICENESS = 5  # lower priority than the server
PRELOADED = [
    "hydralora.components.of_recipe",
    "sklearn.cluster",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
]

# A fork server with its imports done and no threads is copied in milliseconds; Windows has none.
_context: Any = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
if sys.platform != "win32":
    _context.set_forkserver_preload(PRELOADED)


def warm_up() -> None:
    """Start importing what computations need, so that the first one need not wait."""
    threading.Thread(target=_context.Process(target=int).start, name="warm-up", daemon=True).start()


def in_process(
    function: Callable[..., T], *args: Any, on_progress: OnProgress = ignore_progress, memory: int | None = None
) -> T:
    """Call function(*args, on_progress=...) in another process; its arguments and its result are copied.

    An error of `on_progress` ends the process and is raised here. It is called at intervals, even without progress.

    Args:
        memory: bytes that it may take besides those that it begins with.

    Raises:
        HydraError: the function raised it, it took more memory, or the process died.
    """
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(sender, function, args, memory), daemon=True)
    process.start()
    sender.close()
    within = _Within(process.pid, memory) if memory else None
    latest = (0, 1)
    kind: str
    value: Any
    try:
        while True:
            kind, value = pickle.loads(receiver.recv_bytes()) if receiver.poll(EVERY) else ("progress", latest)
            if kind == "done":
                return value
            if kind == "failed":
                raise value
            latest = value
            if within:
                within.check()
            on_progress(*latest)
    except EOFError:
        raise HydraError(
            _too_much(memory)
            if memory
            else "The computation's process was ended from outside, probably because memory ran out. Close other "
            "programs, or use fewer rows."
        ) from None
    finally:
        receiver.close()
        process.terminate()
        process.join()


class _Within:
    """A process's memory, watched from outside: the system's limit leaves out shared parts, and some have none."""

    def __init__(self, pid: int, memory: int) -> None:
        self._memory = memory
        with suppress(psutil.Error):  # it may have ended
            self._process = psutil.Process(pid)
            self._most = self._process.memory_info().rss + memory

    def check(self) -> None:
        """
        Raises:
            HydraError: it takes more.
        """
        with suppress(psutil.Error, AttributeError):
            if self._process.memory_info().rss > self._most:
                raise HydraError(_too_much(self._memory))


def _too_much(memory: int) -> str:
    size = f"{memory / 2**30:.3g} GiB"
    return f"This takes more than {size} of memory, so it was ended. Use a smaller file, or shorter rows."


def _limit(memory: int) -> None:
    """Let this process take so many bytes more; an allocation beyond them fails."""
    with suppress(ImportError, AttributeError, ValueError, OSError):  # Windows and macOS have no such limit
        import resource

        limit = psutil.Process().memory_info().data + memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _portable(error: Exception, memory: int | None) -> Exception:
    """An error that can be raised in the waiting process."""
    if memory and is_out_of_memory(error):
        return HydraError(_too_much(memory))
    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else HydraError(first_line(error))
    except Exception:  # of any kind, by how the error's class is made
        return HydraError(first_line(error))


def _work(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...], memory: int | None) -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    if memory:
        _limit(memory)

    def send(kind: str, value: Any) -> None:
        pipe.send_bytes(pickle.dumps((kind, value)))  # pipe.send would share tensor memory, freed at our exit

    try:
        send("done", function(*args, on_progress=lambda done, total: send("progress", (done, total))))
    except Exception as error:  # raised again in the waiting process
        send("failed", _portable(error, memory))
