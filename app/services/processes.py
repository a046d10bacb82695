"""Computations in separate processes: the page stays responsive, and a stop takes effect at once.

In a thread of the server they would hold Python's lock, for which every answer waits dozens of times.
"""

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from hydralora.data.progress import OnProgress
from hydralora.errors import HydraError

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


def in_process(function: Callable[..., T], *args: Any, on_progress: OnProgress) -> T:
    """Call function(*args, on_progress=...) in another process; its arguments and its result are copied.

    An error of `on_progress` ends the process and is raised here. It is called at intervals, even without progress.

    Raises:
        HydraError: the function raised it, or the process died.
    """
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
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
            on_progress(*latest)
    except EOFError:
        raise HydraError(
            "The computation's process was ended from outside, probably because memory ran out. Close other programs, "
            "or use fewer rows."
        ) from None
    finally:
        receiver.close()
        process.terminate()
        process.join()


def _work(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)

    def send(kind: str, value: Any) -> None:
        pipe.send_bytes(pickle.dumps((kind, value)))  # pipe.send would share tensor memory, freed at our exit

    try:
        send("done", function(*args, on_progress=lambda done, total: send("progress", (done, total))))
    except Exception as error:  # raised again in the waiting process
        send("failed", error)
