"""Errors and sentences on their way to the page: users' text is escaped, engine errors become messages."""

import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from hydralora.errors import HydraError
from hydralora.resources import is_out_of_memory

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
    """The same for a handler that yields. Its end changes nothing: Gradio would send what came last once more, over
    what a newer listener filled meanwhile, and empty all that the handler fills if nothing came."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        with _translated():
            yield from function(*args, **kwargs)
        yield gr.skip()

    return run


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
