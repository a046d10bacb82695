"""Progress reports of long operations."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # called with the steps done and the total; raising an exception stops the work


def ignore_progress(done: int, total: int) -> None:
    """An `OnProgress` that does nothing."""


def describe_duration(seconds: float) -> str:
    """A rounded duration: "40 s", "6 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
