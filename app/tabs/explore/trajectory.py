"""How A and the heads move during training."""

from collections.abc import Iterator

import gradio as gr

from hydralora.projection import Method

from ...actions.explore import trajectory as actions
from ...page.buttons import method_choice, new_choices
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler, latest
from ...page.text import say, sentence
from .shapes import ShapePanels


def build(context: Context, view_tab: gr.Tab) -> None:
    services, run = context.services, context.run
    with gr.Row():
        module = gr.Dropdown([], value=None, label="Module", elem_id="trajectory-module", min_width=320, scale=2)
        method = method_choice("trajectory-method")
    reading = sentence("", elem_id="trajectory-sentence")
    pictures = ShapePanels("trajectory", "Matrices from step to step", "trajectory-sentence", actions.PANELS)
    pictures.draw()

    @handler
    def choices(run_id: str | None, chosen: str | None) -> gr.Dropdown:
        known = actions.modules(services, run_id)
        return new_choices(gr.Dropdown, known, chosen, chosen if chosen in known else next(iter(known), None))

    @latest(services, "trajectory")
    def show(run_id: str | None, module: str | None, method: Method) -> Iterator[Updates]:
        for view in actions.view(services, run_id, module, method):
            drawn = {} if view.figures is None else pictures.figures(view.figures)
            yield {reading: say(view.sentence)} | drawn

    inputs, outputs = [run, module, method], [reading, *pictures.panels]
    opened = context.signals.follow([view_tab.select, run.change], choices, [run, module], module)
    opened.then(show, inputs, outputs, **QUIET)
    context.signals.follow([module.change, method.change], show, inputs, outputs)
