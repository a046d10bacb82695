"""Progress reports of long operations."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # called with the steps done and the total; raising an exception stops the work


def ignore_progress(done: int, total: int) -> None:
    """An `OnProgress` that does nothing."""
