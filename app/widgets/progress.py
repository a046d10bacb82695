"""The bar of a run's progress: one for all phases, read out by screen readers."""

from pathlib import Path

import gradio as gr

SCRIPT = Path(__file__).with_name("progress.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("progress.css").read_text(encoding="utf-8")
TEMPLATE = """<div class="run-progress" hidden>
<div class="track" role="progressbar" aria-label="Progress of the run" aria-valuemin="0" aria-valuemax="100"><i></i>
</div>
<p><span></span><span></span><span></span></p></div>"""


def progress_bar(elem_id: str) -> gr.HTML:
    """A hidden bar; its value is {fraction: 0-1, place, share, left}, all texts but the first, or None to hide it."""
    return gr.HTML(
        None, html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT, elem_id=elem_id, elem_classes=["bare"]
    )
