"""How A and the heads move during training."""

from collections.abc import Iterator

import gradio as gr

from hydralora.projection import Method

from ...actions.explore import trajectory as actions
from ...page.buttons import method_choice, new_choices
from ...page.context import Context
from ...page.handlers import Updates, handler, latest
from ...page.text import explain, reading_help, say, sentence
from .shapes import ShapePanels


def build(context: Context, view_tab: gr.Tab) -> None:
    services, run = context.services, context.run
    pictures = ShapePanels("trajectory", "Matrices from step to step", "trajectory-help", actions.PANELS)
    with gr.Row(elem_classes=["with-rail"]):
        with gr.Column(elem_classes=["picture"]):
            pictures.draw()
            reading = sentence("", elem_id="trajectory-sentence")
            explanation = reading_help("", "trajectory-help")
        with gr.Column(elem_classes=["rail"]):
            module = gr.Dropdown([], value=None, label="Module", elem_id="trajectory-module")
            method = method_choice("trajectory-method")

    @handler
    def choices(run_id: str | None, chosen: str | None) -> gr.Dropdown:
        known = actions.modules(services, run_id)
        values = [value for _, value in known]
        return new_choices(gr.Dropdown, known, chosen, chosen if chosen in values else next(iter(values), None))

    @latest(services, "trajectory")
    def show(run_id: str | None, module: str | None, method: Method) -> Iterator[Updates]:
        for view in actions.view(services, run_id, module, method):
            drawn = {} if view.figures is None else pictures.figures(view.figures)
            yield {reading: say(view.sentence), explanation: explain(view.help)} | drawn

    opened = context.signals.follow([view_tab.select, run.change], choices, [run, module], module)
    context.signals.follow(
        [opened.then, module.change, method.change],
        show,
        [run, module, method],
        [reading, explanation, *pictures.panels],
    )
