"""A run of less than a minute, whose heads part while one watches."""

import gradio as gr

from hydralora.errors import HydraError

from ...actions.learn import sandbox as actions
from ...page.browser_state import KeptChoices
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler
from ...page.text import say, sentence
from ...widgets.plot import plot_panel
from ...widgets.progress import progress_bar
from ..shell import choose_run

POLL_SECONDS = 1.0


class Sandbox:
    """The run's buttons and progress, and its heads as they part.

    Attributes:
        run: hidden, the id of the run; "" for none.
        explore: leads to the run in Explore.
    """

    def __init__(self, kept: KeptChoices) -> None:
        self._kept = kept
        with gr.Column(elem_classes=["off"]):
            self.run = gr.Textbox("", label="Sandbox run", elem_id="sandbox-run")
        self._mark = gr.State("")  # of what is shown, so that only changes are sent
        self._timer = gr.Timer(POLL_SECONDS, active=False)
        with gr.Row(elem_id="sandbox-row"):
            self.start = action_button("Train it", "sandbox-start", 120, variant="primary")
            self.stop = action_button("Stop", "sandbox-stop", 96, variant="stop", visible=False)
            self.explore = action_button("Open in Explore", "sandbox-explore", 160, visible=False)
            self.sentence = sentence(actions.NO_RUN, elem_id="sandbox-sentence")
        self.bar = progress_bar("sandbox-bar")
        with gr.Row(elem_id="sandbox-figures"):
            self.distances = plot_panel(
                "sandbox-distances", "Distance of each head from their mean, over steps", empty="Drawn while it trains."
            )
            self.paths = plot_panel("sandbox-paths", "Heads in a plane, step by step", empty="Drawn while it trains.")
        kept.keep("sandbox", self.run.change, self.run)

    def wire(self, context: Context) -> None:
        services, run = context.services, self.run

        @handler
        def begin(model: str) -> Updates:
            return {run: actions.start(services, model), self.start: gr.Button(interactive=False)}

        @handler
        def stop(run_id: str) -> None:
            actions.stop(services, run_id)

        def look(run_id: str) -> str:
            try:
                return actions.mark(services, run_id)
            except HydraError as error:  # shown in the sentence: a message every second would be too many
                return str(error)

        self.start.click(begin, context.model, [run, self.start], **QUIET)
        self.stop.click(stop, run, None, **QUIET)
        self.explore.click(lambda run_id: choose_run(context, run_id), run, [context.run, context.dataset], **QUIET)
        self._timer.tick(look, run, self._mark, **QUIET)
        context.signals.follow([run.change], look, run, self._mark)
        self._follow(context)

    def _follow(self, context: Context) -> None:
        """Show what is new of the run; look again while it trains."""
        services = context.services

        @handler
        def show(run_id: str) -> Updates:
            view = actions.view(services, run_id)
            return {
                self.sentence: say(view.sentence),
                self.bar: view.bar,
                self.distances: view.distances,
                self.paths: view.paths,
                self.start: gr.Button("Train it again" if run_id else "Train it", interactive=not view.is_active),
                self.stop: gr.Button(visible=view.is_active),
                self.explore: gr.Button(visible=bool(view.paths) and not view.is_active),
                self._timer: gr.Timer(active=view.is_active),
            }

        outputs: list[Component] = [
            self.sentence,
            self.bar,
            self.distances,
            self.paths,
            self.start,
            self.stop,
            self.explore,
            self._timer,
        ]
        context.signals.follow([self._mark.change], show, self.run, outputs)
