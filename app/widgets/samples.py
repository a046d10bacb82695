"""Answers to a few prompts, before training and now, side by side."""

from pathlib import Path

import gradio as gr

SCRIPT = Path(__file__).with_name("samples.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("samples.css").read_text(encoding="utf-8")


def sample_answers(elem_id: str) -> gr.HTML:
    """An empty list; its value is [{prompt, expected, before, now}]."""
    return gr.HTML(
        [],
        html_template="<div class='samples' role='table' aria-label='Answers before training and now'></div>",
        css_template=STYLE,
        js_on_load=SCRIPT,
        elem_id=elem_id,
        elem_classes=["bare"],
    )
