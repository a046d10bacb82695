"""The mapping: which column holds what."""

from collections.abc import Sequence

import gradio as gr

from hydralora.data.mapping import Mapping

from ...actions import data as actions
from ...page.buttons import action_button, download_button
from ...page.handlers import Updates

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
        self.pending = gr.State([])  # uploaded files whose columns are not mapped yet
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

    def updates(self, columns: Sequence[str], mapping: dict[str, str]) -> Updates:
        """The fields of a mapping, with these columns as choices."""
        named = [(name, name) for name in columns]
        choices = {"encoding": ENCODING_CHOICES} | {name: [*MARK_CHOICES, *named] for name in actions.MARKS}
        return {
            field: gr.Dropdown(
                choices=choices.get(name, [("(none)", actions.NONE), *named]), value=mapping.get(name, actions.NONE)
            )
            for name, field in self.fields.items()
        }
