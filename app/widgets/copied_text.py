"""A text to copy, such as a recipe or a piece of code."""

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
SCRIPT = (HERE / "copied_text.js").read_text(encoding="utf-8")
STYLE = (HERE / "copied_text.css").read_text(encoding="utf-8")


def copied_text(label: str, elem_id: str) -> gr.HTML:
    """An empty text under its label, with a button that copies it; its value is a string, shown as text."""
    # The text scrolls, so the keyboard must reach it.
    template = f"""<div class="copied"><p>{label}</p><button type="button">Copy</button>
<pre tabindex="0" role="region" aria-label="{label}"></pre></div>"""
    return gr.HTML(
        "", html_template=template, css_template=STYLE, js_on_load=SCRIPT, elem_id=elem_id, elem_classes=["bare"]
    )
