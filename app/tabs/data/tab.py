"""Data: upload files or use the demo; see the rows, their problems, and what the model sees."""

import gradio as gr

from ...actions import data as actions
from ...page.context import Context
from ...page.handlers import Updates, latest
from . import own_files
from .as_seen import AsTheModelSeesIt
from .columns import Columns
from .rows import Rows
from .sources import VIEW, Sources


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

    @latest(services, VIEW)
    def show(dataset_id: str) -> Updates:
        view = actions.view(services, dataset_id)
        mapping_file = gr.DownloadButton(value=actions.mapping_file(services, dataset_id))
        column_updates = columns.updates(view.columns, view.mapping) | {columns.file: mapping_file, columns.pending: []}
        return rows.updates(services, dataset_id, view) | column_updates | as_seen.awaited()

    outputs = [*rows.outputs, columns.file, columns.pending, *columns.fields.values(), *as_seen.outputs]
    opened = [dataset.change, context.page.load]
    viewed = context.signals.follow(opened, show, dataset, outputs)
    as_seen.wire(viewed)
    sources.wire(context, columns)
    return following
