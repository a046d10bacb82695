"""The chosen dataset's own files: rows to hold out, and its removal."""

import gradio as gr

from hydralora.data.sources import SUFFIXES
from hydralora.data.store import DEMO

from ...actions import data as actions
from ...page.buttons import action_button, upload_button
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler
from ...page.text import sentence


def build(context: Context) -> None:
    """Buttons that add a file of held-out rows to the dataset, and that remove the dataset."""
    services, dataset = context.services, context.dataset
    with gr.Row(elem_id="own-files"):
        heldout = upload_button("Upload held-out rows", "upload-heldout", SUFFIXES, 220)
        remove = action_button("Remove this dataset", "remove", 220, interactive=False, size="sm")
        sentence("Held-out rows are a second file to evaluate on. Without it, a share of these rows is held out.")

    @handler
    def hold_out(dataset_id: str, file: str) -> str:
        return actions.hold_out(services, dataset_id, file)

    heldout.upload(hold_out, [dataset, heldout], dataset, api_visibility="private")
    _removal(context, remove)


def _removal(context: Context, remove: gr.Button) -> None:
    """Remove the dataset, after a confirmation."""
    services, dataset = context.services, context.dataset
    with gr.Row(visible=False, elem_id="really-remove") as question:
        sentence("Remove the dataset's files from this workspace? Runs that were trained on it keep their results.")
        yes = action_button("Remove", "remove-yes", 120, variant="stop", size="sm")
        no = action_button("Keep", "remove-no", 120, size="sm")

    @handler
    def go(dataset_id: str) -> Updates:
        actions.remove(services, dataset_id)
        return {dataset: DEMO, question: gr.Row(visible=False)}

    remove.click(lambda: gr.Row(visible=True), None, question, **QUIET)
    no.click(lambda: gr.Row(visible=False), None, question, **QUIET)
    yes.click(go, dataset, [dataset, question], **QUIET)
    context.signals.follow(
        [dataset.change],
        lambda dataset_id: {remove: gr.Button(interactive=dataset_id != DEMO), question: gr.Row(visible=False)},
        dataset,
        [remove, question],
    )
