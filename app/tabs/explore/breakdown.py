"""The paper's breakdown, on the run's own rows."""

from collections.abc import Iterator

import gradio as gr

from hydralora.analysis.breakdown import STEPS
from hydralora.errors import HydraError
from hydralora.projection import Method

from ...actions.explore import breakdown as actions
from ...page.buttons import action_button, method_choice
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler, latest
from ...page.text import say, sentence
from .shapes import ShapePanels

LOOK_SECONDS = 2


def build(context: Context, view_tab: gr.Tab) -> None:
    services, run = context.services, context.run
    pictures = ShapePanels("breakdown", "A's and B's of a LoRA for each component", "breakdown-caption")
    with gr.Row():
        start = action_button("Train a LoRA for each component", "breakdown-start", 310, variant="primary", size="lg")
        steps = gr.Number(
            STEPS, label="Steps per LoRA", precision=0, minimum=1, elem_id="breakdown-steps", min_width=120
        )
        method = method_choice("breakdown-method")
        pictures.choice.render()
    reading = sentence(actions.CLAIM, elem_id="breakdown-sentence")
    table = gr.Dataframe(
        headers=actions.COLUMNS, interactive=False, visible=False, elem_id="breakdown-table", label="Separation"
    )
    pictures.draw()
    caption = sentence("", elem_id="breakdown-caption")
    signature, again = gr.State(()), gr.Timer(LOOK_SECONDS, active=False)

    @latest(services, "breakdown")
    def show(
        run_id: str | None, method: Method, shapes: list[str] | None, before: tuple[object, ...]
    ) -> Iterator[Updates]:
        for view in _views(actions.view(services, run_id, method, shapes or ())):
            if view.signature == tuple(before):
                continue
            yield (
                {
                    signature: view.signature,
                    reading: say(view.sentence),
                    start: gr.Button(interactive=view.ready),
                    again: gr.Timer(active=view.working),
                    table: gr.Dataframe(value=view.rows, visible=bool(view.rows)),
                    caption: say(view.caption),
                }
                | pictures.shapes(view.shapes, view.drawn)
                | pictures.figures(view.figures)
            )

    @handler
    def begin(run_id: str | None, steps: float | None) -> Updates:
        if run_id:
            actions.start(services, run_id, int(steps or STEPS))
        return {again: gr.Timer(active=True), signature: ()}

    outputs = [signature, reading, start, again, table, caption, pictures.choice, *pictures.panels]
    start.click(begin, [run, steps], [again, signature], **QUIET)
    changes = [view_tab.select, run.change, method.change, pictures.choice.change, again.tick]
    context.signals.follow(changes, show, [run, method, pictures.choice, signature], outputs)


def _views(views: Iterator[actions.BreakdownView]) -> Iterator[actions.BreakdownView]:
    """Errors as views: a message every few seconds would be too many."""
    try:
        yield from views
    except HydraError as error:
        yield actions.BreakdownView(("failed", str(error)), str(error), ready=True)
