"""The list of a dataset's components, beside their map."""

import json
from pathlib import Path

import gradio as gr

from hydralora.figures.palette import HEAD_COLOURS, HEAD_MARKS

SCRIPT = Path(__file__).with_name("component_list.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("component_list.css").read_text(encoding="utf-8")
SIGNS = {  # of the figures' marks
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "cross": "✚",
    "star": "★",
    "hexagon": "⬢",
    "bowtie": "⧓",
}


def component_list(elem_id: str) -> gr.HTML:
    """The components; its value is {components: [ListedComponent], chosen: number or 0}, None while they are
    being computed.

    Event: `.pick` with `event.number`, 0 where a chosen one is no longer to be.
    """
    constants = {"MARK_COLOURS": list(HEAD_COLOURS), "MARK_SIGNS": [SIGNS[mark] for mark in HEAD_MARKS]}
    script = SCRIPT
    for name, constant in constants.items():
        script = script.replace(name, json.dumps(constant, ensure_ascii=False))
    template = '<ol class="component-list" aria-label="Components; choose one to see its rows on the map"></ol>'
    return gr.HTML(
        None, html_template=template, css_template=STYLE, js_on_load=script, elem_id=elem_id, elem_classes=["bare"]
    )
