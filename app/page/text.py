"""Errors and sentences on their way to the page: users' text is escaped, engine errors become messages."""

import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from hydralora.errors import HydraError
from hydralora.training.resources import is_out_of_memory

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # listeners that tell in words
LATEST = QUIET | {"trigger_mode": "always_last"}  # those that show what is chosen: no change may pass unseen
MOST_TOLD = 300  # characters of an error that nobody foresaw
P = ParamSpec("P")
R = TypeVar("R")


def sentence(text: str, elem_id: str | None = None, elem_classes: Sequence[str] = ()) -> gr.HTML:
    """A line of text; update it with `say`."""
    return gr.HTML(say(text), elem_id=elem_id, elem_classes=["sentence", *elem_classes])


def say(text: str) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def shown(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an engine error in a handler into the page's error message."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _translated():
            return function(*args, **kwargs)

    return run


def shown_stream(function: Callable[P, Iterator[Any]]) -> Callable[P, Iterator[Any]]:
    """The same for a handler that yields. One that yields nothing, or is superseded, changes nothing at its end: Gradio
    would empty all that it fills, or send what it yielded last once more, over what a newer one has filled."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        said = False
        with _translated():
            try:
                for update in function(*args, **kwargs):
                    said = True
                    yield update
            except SupersededError:
                said = False
        if not said:
            yield gr.skip()

    return run


class SupersededError(Exception):
    """Something newer fills what this would fill."""


def until_superseded(is_newest: Callable[[], bool], steps: Iterator[R]) -> Iterator[R]:
    """The steps of a `shown_stream`, as long as nothing newer has begun: of two, the older one must not come last.

    Raises:
        SupersededError: something newer has begun.
    """
    for step in steps:
        if not is_newest():
            raise SupersededError
        yield step


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except HydraError as error:
        raise gr.Error(html.escape(str(error)), title="That did not work", print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:MOST_TOLD]}"
        if is_out_of_memory(error):
            told = "There is not enough memory for this. Free the chat's models, or wait until a run has ended."
        raise gr.Error(html.escape(f"{told} The app's terminal has the details."), title="That did not work") from error
