"""The size of an adapter, recounted while its rank and its number of heads change."""

from collections.abc import Callable, Sequence

import gradio as gr

from ...actions.learn import sizes as actions
from ...page.context import Context
from ...page.handlers import Component, Updates, handler
from ...page.text import sentence
from ...widgets import learn

HOW_TO_READ = (
    "Each bar is all that is trained. A is shared, so a further head costs its B and a row of the router. The plain "
    "LoRA has one A and one B, of the smallest rank that makes it at least as large. Adapters have 4 bytes a "
    "parameter, and AdamW keeps 8 more while it trains."
)


class Sizes:
    """Sliders for r and N, and what they cost."""

    def __init__(self) -> None:
        with gr.Row(elem_id="learn-sliders"):
            self.r = gr.Slider(1, actions.MOST_R, value=8, step=1, label="Rank r", elem_id="learn-r")
            self.heads = gr.Slider(1, actions.MOST_HEADS, value=4, step=1, label="Heads N", elem_id="learn-n")
        self.view = learn.sizes("sizes")
        self.reading = sentence(HOW_TO_READ, elem_id="sizes-reading")

    def wire(self, context: Context, opened: Sequence[Callable[..., object]]) -> None:
        """Begin at the chosen run's rank and heads; recount at every change."""
        services, run = context.services, context.run
        shown = gr.State(None)  # the run whose rank and heads the sliders began at

        @handler
        def begin(run_id: str, before: str | None) -> Updates:
            if run_id == before:
                return gr.skip()
            r, heads = actions.start(services, run_id)
            return {self.r: r, self.heads: heads, shown: run_id}

        @handler
        def count(run_id: str, r: float, heads: float) -> Updates:
            return {self.view: actions.sizes(services, run_id, int(r or 1), int(heads or 1))}

        begun = context.signals.follow([*opened, run.change], begin, [run, shown], [self.r, self.heads, shown])
        changes: list[Component] = [begun.then, self.r.change, self.heads.change]
        context.signals.follow(changes, count, [run, self.r, self.heads], [self.view])
