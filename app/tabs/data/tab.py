"""Data: upload files or use the demo; see the rows, their problems, and what the model sees."""

import gradio as gr

from ...actions import data as actions
from ...page.context import Context
from ...page.handlers import Updates, latest
from . import own_files
from .as_seen import AsTheModelSeesIt
from .columns import Columns
from .rows import Rows
from .sources import Sources


def build(context: Context) -> gr.Button:
    """The page; returns the button that leads to the next one."""
    services, dataset = context.services, context.dataset
    rows = Rows()
    with gr.Row(elem_id="data-head"):
        rows.counts.render()
        following = gr.Button(
            "Next: components", variant="primary", elem_id="to-clusters", scale=0, min_width=190, size="md"
        )
    sources = Sources()
    with gr.Row(elem_id="data-main"):
        rows.table.render()
        as_seen = AsTheModelSeesIt(context)
    rows.draw_problems()
    columns = Columns()
    as_seen.draw_more()
    own_files.build(context)

    @latest(services, "dataset")
    def show(dataset_id: str) -> Updates:
        return rows.updates(services, dataset_id, actions.view(services, dataset_id)) | as_seen.awaited()

    opened = [dataset.change, context.page.load]
    as_seen.wire(context.signals.follow(opened, show, dataset, [*rows.outputs, *as_seen.outputs]))
    columns.wire(context)
    sources.wire(context, columns)
    return following
