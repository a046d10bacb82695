"""Trials of the number of components by other methods, in the Components page."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hydralora.errors import HydraError

from ...actions.components import trials as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, arrival, cancel_then, latest
from ...page.text import say, sentence
from ...services.background import Done
from ...widgets.plot import plot_panel
from .settings import ComponentForm

KIND = "trials"


class Trials:
    """How often each method finds each number; `forget` is the listener that clears outdated trials."""

    def __init__(self, context: Context, form: ComponentForm) -> None:
        self._draw()
        services = context.services

        @latest(services, KIND)
        def go(dataset_id: str, *values: Component) -> Iterator[Updates]:
            try:
                for step in actions.trials(services, dataset_id, form.request(*values)):
                    if isinstance(step, Done):
                        yield self._ended() | {self.figure: step.value}
                    else:
                        yield {self.status: say(step), self.stop: gr.Button(visible=True)}
            except HydraError:
                yield self._ended()
                raise

        def forget(request: gr.Request, subject: str, dataset_id: str, *values: Component) -> Updates:
            now = f"{dataset_id} {form.request(*values).key}"
            if now == subject:
                return gr.skip()
            # Supersedes running trials, which are outdated.
            services.sessions.newest(request.session_hash or "", KIND, arrived=arrival(request))
            return self._ended() | {self.subject: now, self.figure: ""}

        outputs = [self.status, self.stop, self.figure]
        going = self.start.click(go, [context.dataset, *form.inputs], outputs, **QUIET)
        cancel_then(self.stop.click, [going], lambda: self._ended("Stopped."), [self.status, self.stop])
        self.forget: dict[str, Any] = {
            "fn": forget,
            "inputs": [self.subject, context.dataset, *form.inputs],
            "outputs": [self.subject, *outputs],
        }

    def _ended(self, text: str = "") -> Updates:
        return {self.status: say(text), self.stop: gr.Button(visible=False)}

    def _draw(self) -> None:
        with gr.Accordion("How many, by other methods", open=False, elem_id="trials"):
            sentence(
                f"Each of {actions.TRIALS} trials draws four fifths of the rows, 2,000 at most, and finds the number "
                "of components by every method. A reliable method finds the same number in most trials."
            )
            with gr.Row():
                self.start = action_button(f"Run {actions.TRIALS} trials", "run-trials", 200, size="lg")
                self.stop = action_button("Stop the trials", "stop-trials", 160, visible=False, size="lg")
            self.status = sentence("", elem_id="trials-sentence")
            self.figure = plot_panel("trials-figure", "Number of components by method", empty="No trials yet.")
            self.subject = gr.State("")  # the dataset and request of the figure
