"""The tour's hidden widget: through it the tour (app/teaching/tour.js) tells the server what to show."""

import gradio as gr

SCRIPT = """const events = ['begin', 'answer', 'leave'];
window.studio.tellTour = (name, data) => events.includes(name) && trigger(name, data);"""


def tour() -> gr.HTML:
    """Events: `.begin`, `.answer` with `event.steered` (whether the answer of head 4 alone belongs to it), `.leave`."""
    return gr.HTML("", js_on_load=SCRIPT, elem_classes=["signals"])
