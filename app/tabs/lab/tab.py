"""Lab: questions that are answered by many runs: choose one, plan it, and see its answer come."""

import gradio as gr

from ...page.browser_state import KeptChoices
from ...page.context import Context
from ...page.handlers import QUIET, Updates
from .choosing import Choosing
from .following import Following

LINK = "(id) => { studio.link({study: id}); return []; }"
LINKED = "() => new URLSearchParams(location.search).get('study') ?? ''"  # ?study=ID opens a study


def build(context: Context, tab: gr.Tab, kept: KeptChoices) -> None:
    """The page: the studies to choose from, or the one that is open.

    Args:
        kept: the browser's card and sizes.
    """
    with gr.Column(elem_classes=["off"]):
        study = gr.Textbox("", label="Study", elem_id="study")
    choosing = Choosing(kept)
    following = Following(study)
    study.change(None, study, None, js=LINK, **QUIET)
    choosing.wire(context, tab, study)
    following.wire(context)

    def show(study_id: str) -> Updates:
        return {choosing.column: gr.Column(visible=not study_id), following.column: gr.Column(visible=bool(study_id))}

    context.page.load(None, None, study, js=LINKED, **QUIET)
    study.change(show, study, [choosing.column, following.column], **QUIET)
