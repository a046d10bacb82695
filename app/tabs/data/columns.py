"""The mapping: which column holds what."""

import gradio as gr

from hydralora.data.mapping import Mapping

from ...actions import data as actions
from ...page.buttons import action_button, download_button
from ...page.context import Context
from ...page.handlers import Updates, latest

LABELS = {
    "question": "Question",
    "context": "Context",
    "answer": "Answer",
    "messages": "Conversation",
    "text": "Plain text",
    "label": "Good or bad",
    "encoding": "Encoding of the text",
}
MARK_CHOICES = [("By its name and values", actions.NONE), ("None: every row is learnt", actions.OFF)]
ENCODING_CHOICES = [("By the first bytes", actions.NONE), *((name, name) for name in actions.ENCODINGS)]


class Columns:
    """The mapping of columns."""

    def __init__(self) -> None:
        self.pending = gr.State(None)  # NeedsMapping: uploaded files that wait for it
        with gr.Accordion("Which column is which?", open=False, elem_id="columns") as self.panel:
            with gr.Row():
                self.fields = {
                    name: gr.Dropdown(
                        [actions.NONE],
                        value=actions.NONE,
                        label=LABELS.get(name, name.capitalize()),
                        info=info.description,
                        min_width=200,
                        allow_custom_value=name == "encoding",
                        elem_id=f"column-{name}",
                    )
                    for name, info in Mapping.model_fields.items()
                    if name in actions.IN_FORM
                }
            with gr.Row():
                self.apply = action_button("Apply mapping", "apply-columns", 240)
                self.file = download_button("Download mapping", "mapping-file", 240)

    def wire(self, context: Context) -> None:
        """Show the mapping of the dataset, or of files that wait for one, whatever dataset is chosen meanwhile."""
        services = context.services

        @latest(services, "columns")
        def show_columns(dataset_id: str, pending: actions.NeedsMapping | None) -> Updates:
            columns, mapping = (pending.columns, {}) if pending else actions.columns(services, dataset_id)
            named = [(name, name) for name in columns]
            choices = {"encoding": ENCODING_CHOICES} | {name: [*MARK_CHOICES, *named] for name in actions.MARKS}
            updates: Updates = {
                field: gr.Dropdown(
                    choices=choices.get(name, [("(none)", actions.NONE), *named]), value=mapping.get(name, actions.NONE)
                )
                for name, field in self.fields.items()
            }
            return updates | {self.file: gr.DownloadButton(value=actions.mapping_file(services, dataset_id))}

        changes = [context.dataset.change, self.pending.change, context.page.load]
        outputs = [self.file, *self.fields.values()]
        context.signals.follow(changes, show_columns, [context.dataset, self.pending], outputs)
