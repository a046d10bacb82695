"""A batch as the model reads it: rows of tokens, with learnt and special tokens marked."""

from pathlib import Path

import gradio as gr

SCRIPT = Path(__file__).with_name("batch.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("batch.css").read_text(encoding="utf-8")


def batch_view(elem_id: str) -> gr.HTML:
    """An empty view; its value is {rows: [{row: number, tokens: [[text, learnt, special]]}], note: string}."""
    return gr.HTML(
        {"rows": [], "note": ""},
        html_template="<div class='batch'></div>",
        css_template=STYLE,
        js_on_load=SCRIPT,
        elem_id=elem_id,
    )
