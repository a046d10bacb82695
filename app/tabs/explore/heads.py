"""Every head in numbers, layer by layer."""

import gradio as gr

from hydralora.figures import MEASURES, Measure

from ...actions.explore import heads as actions
from ...page.context import Context
from ...page.handlers import Updates, handler
from ...page.text import say, sentence
from ...widgets.plot import plot_panel


def build(context: Context, view_tab: gr.Tab) -> None:
    measures = [(name, key) for key, name in MEASURES.items()]
    measure = gr.Radio(measures, value="similarity", label="Measure", elem_id="heads-measure")
    reading = sentence("", elem_id="heads-sentence")
    figure = plot_panel("heads-figure", "A measure of every head, layer by layer", caption="heads-sentence")
    table = gr.Dataframe(
        headers=actions.COLUMNS, interactive=False, elem_id="heads-table", label="The same as a table", max_height=320
    )

    @handler
    def show(run_id: str | None, measure: Measure) -> Updates:
        view = actions.view(context.services, run_id, measure)
        drawn = gr.HTML(value=view.figure, visible=bool(view.figure))
        return {reading: say(view.sentence), figure: drawn, table: view.rows or []}

    changes = [view_tab.select, context.run.change, measure.change]
    context.signals.follow(changes, show, [context.run, measure], [reading, figure, table])
