"""How far long work is, told to whoever waits for it."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # called with what is done and all there is to do; raising ends the work


def ignore_progress(done: int, total: int) -> None:
    """An `OnProgress` for work that nobody watches."""
