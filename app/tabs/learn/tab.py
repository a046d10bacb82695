"""Learn: the formula with real numbers, the size of an adapter, predictions, and a run to watch."""

import gradio as gr

from ...page.browser_state import KeptChoices
from ...page.context import Context
from .formula import Formula
from .predictions import Predictions
from .sandbox import Sandbox
from .sizes import Sizes


def build(context: Context, tab: gr.Tab, kept: KeptChoices, quiz: gr.BrowserState) -> gr.Button:
    """The page, view by view; returns the button that leads to Explore.

    Args:
        kept: the browser's prompt, layer and sandbox run.
        quiz: the browser's predictions.
    """
    with gr.Tabs(elem_id="learn-views"):
        with gr.Tab("Formula", id="formula") as view:
            formula = Formula(kept)
            formula.wire(context, [tab.select, view.select])
        with gr.Tab("Size", id="sizes") as view:
            Sizes().wire(context, [tab.select, view.select])
        with gr.Tab("Predict", id="quiz") as view:
            Predictions().wire(context, [tab.select, view.select], quiz)
        with gr.Tab("Sandbox", id="sandbox"):
            sandbox = Sandbox(kept)
            sandbox.wire(context)
    kept.restore(context.page, lambda stored: stored or {}, {"sandbox": sandbox.run})
    return sandbox.explore
