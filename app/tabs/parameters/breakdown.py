"""The paper's breakdown, on the run's own rows."""

from collections.abc import Iterator

import gradio as gr

from hydralora.analysis.breakdown import STEPS
from hydralora.errors import HydraError
from hydralora.figures import METHOD_NAMES
from hydralora.projection import Method

from ...actions.parameters import breakdown as actions
from ...actions.parameters.points import PANELS
from ...page.text import LATEST, QUIET, say, sentence, shown, shown_stream, until_superseded
from ...services import Services
from ...widgets.plot import plot_panel
from .shapes import shapes_choice, shapes_update

LOOK_SECONDS = 2


def build(services: Services, run: gr.Dropdown, view_tab: gr.Tab) -> None:
    with gr.Row():
        start = gr.Button(
            "Train a LoRA for each component", variant="primary", scale=0, min_width=310, elem_id="breakdown-start"
        )
        steps = gr.Number(
            STEPS, label="Steps of each", precision=0, minimum=1, elem_id="breakdown-steps", min_width=120
        )
        method = gr.Radio(
            [(name, method) for method, name in METHOD_NAMES.items()],
            value="pca",
            label="Projection",
            elem_id="breakdown-method",
            min_width=220,
        )
        shapes = shapes_choice("breakdown-shapes")
    told = sentence(actions.CLAIM, elem_id="breakdown-sentence")
    table = gr.Dataframe(
        headers=actions.COLUMNS, interactive=False, visible=False, elem_id="breakdown-table", label="Separation"
    )
    with gr.Row():
        drawn = "A's and B's of a LoRA for each component"
        panels = [plot_panel(f"breakdown-{i}", drawn, caption="breakdown-caption") for i in range(PANELS)]
    caption = sentence("", elem_id="breakdown-caption")
    seen, again = gr.State(()), gr.Timer(LOOK_SECONDS, active=False)

    @shown_stream
    def show(
        request: gr.Request, run_id: str | None, method: Method, shapes: list[str] | None, before: tuple
    ) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", "breakdown")
        for view in until_superseded(is_newest, _told(actions.view(services, run_id, method, shapes or ()))):
            if view.signature == tuple(before):
                continue
            figures = view.figures + [""] * (len(panels) - len(view.figures))
            yield (
                gr.update(value=view.signature),
                gr.update(value=say(view.sentence)),
                gr.update(interactive=view.ready),
                gr.update(active=view.working),
                gr.update(value=view.rows, visible=bool(view.rows)),
                gr.update(value=say(view.caption)),
                shapes_update(view.shapes, view.drawn),
                *(gr.update(value=figure, visible=bool(figure)) for figure in figures),
            )

    @shown
    def begin(run_id: str | None, steps: float | None) -> tuple:
        if run_id:
            actions.start(services, run_id, int(steps or STEPS))
        return gr.update(active=True), ()

    outputs = [seen, told, start, again, table, caption, shapes, *panels]
    start.click(begin, [run, steps], [again, seen], **QUIET)
    asked = [view_tab.select, run.change, method.change, shapes.change, again.tick]
    gr.on(asked, show, [run, method, shapes, seen], outputs, **LATEST)


def _told(views: Iterator[actions.BreakdownView]) -> Iterator[actions.BreakdownView]:
    """An error as a view: a message every few seconds would be a storm."""
    try:
        yield from views
    except HydraError as error:
        yield actions.BreakdownView(("failed", str(error)), str(error), ready=True)
