"""Lab: questions that are answered by many runs: choose one, plan it, and see its answer come."""

import json

import gradio as gr

from ...page.browser_state import KeptChoices
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler
from .choosing import Choosing
from .following import Following

LINK = "(id) => { studio.link({study: id}); return []; }"


def build(context: Context, tab: gr.Tab, kept: KeptChoices) -> None:
    """The page: the studies to choose from, or the one that is open.

    Args:
        kept: the browser's card and sizes.
    """
    services = context.services
    with gr.Column(elem_classes=["off"]):
        study = gr.Textbox("", label="Study", elem_id="study")
    choosing = Choosing(kept)
    following = Following(study)
    study.change(None, study, None, js=LINK, **QUIET)
    choosing.wire(context, tab, study)
    following.wire(context)

    @handler
    def reopen(request: gr.Request) -> Updates:
        """The study that the address names (?study=ID)."""
        linked = str(request.query_params.get("study") or "")
        known = {each.id for each in services.studies.all()} if linked else set()
        if linked and linked not in known:
            gr.Warning(f"There is no study {json.dumps(linked[:40])} in this workspace.")
        return {study: linked} if linked in known else gr.skip()

    def show(study_id: str) -> Updates:
        return {choosing.column: gr.Column(visible=not study_id), following.column: gr.Column(visible=bool(study_id))}

    context.page.load(reopen, None, study, **QUIET)
    study.change(show, study, [choosing.column, following.column], **QUIET)
