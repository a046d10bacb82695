"""Text for the page: users' text is escaped, errors become messages."""

import html
from collections.abc import Sequence

import gradio as gr

from hydralora.errors import HydraError, system_message
from hydralora.training.resources import is_out_of_memory

from ..widgets.glossary import with_terms

LONGEST_ERROR = 300  # characters quoted of an unexpected error


def sentence(text: str, elem_id: str | None = None, elem_classes: Sequence[str] = ()) -> gr.HTML:
    """A line of text; update it with `say`."""
    return gr.HTML(say(text), elem_id=elem_id, elem_classes=["sentence", *elem_classes])


def say(text: str) -> str:
    """The value of a `sentence`; the field's terms are explained where they stand."""
    return f"<p>{with_terms(text)}</p>" if text else ""


def chips(texts: Sequence[str]) -> str:
    """Short facts side by side, as the value of a gr.HTML."""
    return f"<ul class='facts'>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def reading_help(text: str, elem_id: str) -> gr.HTML:
    """How to read a figure, folded behind a button; update it with `explain`."""
    return gr.HTML(explain(text), elem_id=elem_id, elem_classes=["sentence", "reading-help"])


def explain(text: str) -> str:
    """The value of a `reading_help`."""
    return f"<details><summary>How to read this</summary>{say(text)}</details>" if text else ""


def as_message(error: Exception) -> gr.Error:
    """The page's message for a handler's error."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, HydraError):
        return gr.Error(html.escape(str(error)), title="That did not work", print_exception=False)
    if isinstance(error, PermissionError):
        error.filename = None  # no folder of this machine reaches the page
        return gr.Error(html.escape(system_message(error)), title="That did not work")
    text = f"{type(error).__name__}: {str(error)[:LONGEST_ERROR]}"
    if is_out_of_memory(error):
        text = "There is not enough memory. Free the chat's models, or wait until a run has ended."
    return gr.Error(html.escape(f"{text} See the app's terminal for details."), title="That did not work")
