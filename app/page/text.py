"""Sentences and errors on their way to the page: users' text is escaped, engine errors become messages."""

import html
from collections.abc import Sequence

import gradio as gr

from hydralora.errors import HydraError
from hydralora.training.resources import is_out_of_memory

LONGEST_ERROR = 300  # characters of an error that nobody foresaw


def sentence(text: str, elem_id: str | None = None, elem_classes: Sequence[str] = ()) -> gr.HTML:
    """A line of text; update it with `say`."""
    return gr.HTML(say(text), elem_id=elem_id, elem_classes=["sentence", *elem_classes])


def say(text: str) -> str:
    """The value of a `sentence`."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def as_message(error: Exception) -> gr.Error:
    """The page's message for an error of a handler."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, HydraError):
        return gr.Error(html.escape(str(error)), title="That did not work", print_exception=False)
    text = f"{type(error).__name__}: {str(error)[:LONGEST_ERROR]}"
    if is_out_of_memory(error):
        text = "There is not enough memory for this. Free the chat's models, or wait until a run has ended."
    return gr.Error(html.escape(f"{text} The app's terminal has the details."), title="That did not work")
