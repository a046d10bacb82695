"""Every head in numbers, layer by layer."""

import gradio as gr

from hydralora.figures import MEASURES, Measure

from ...actions.parameters import heads as actions
from ...page.text import LATEST, say, sentence, shown
from ...services import Services
from ...widgets.plot import plot_panel


def build(services: Services, run: gr.Dropdown, view_tab: gr.Tab) -> None:
    measure = gr.Radio(
        [(name, key) for key, name in MEASURES.items()], value="similarity", label="Measure", elem_id="heads-measure"
    )
    told = sentence("", elem_id="heads-sentence")
    figure = plot_panel("heads-figure", "A measure of every head, layer by layer", caption="heads-sentence")
    table = gr.Dataframe(
        headers=actions.COLUMNS, interactive=False, elem_id="heads-table", label="The same as a table", max_height=320
    )

    @shown
    def show(run_id: str | None, measure: Measure) -> tuple:
        seen = actions.view(services, run_id, measure)
        return say(seen.sentence), gr.update(value=seen.figure, visible=bool(seen.figure)), seen.rows or []

    gr.on([view_tab.select, run.change, measure.change], show, [run, measure], [told, figure, table], **LATEST)
