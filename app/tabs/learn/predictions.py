"""Predict which head leads on a held-out row, then see its gates."""

from collections.abc import Callable, Sequence

import gradio as gr

from ...actions.learn import predictions as actions
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler
from ...services import MODEL_QUEUE
from ...widgets import learn
from ...widgets.events import told_by


class Predictions:
    """A question with a button for each head, the gates after the answer, and the score."""

    def __init__(self) -> None:
        self.view = learn.quiz("quiz")

    def wire(self, context: Context, opened: Sequence[Callable[..., object]], store: gr.BrowserState) -> None:
        """The browser keeps the predictions in `store`."""
        services, run = context.services, context.run

        def updates(quiz: actions.Quiz) -> Updates:
            return {self.view: actions.view(services, quiz), store: actions.stored(quiz)}

        @handler
        def show(run_id: str, stored: Component) -> Updates:
            return {self.view: actions.view(services, actions.quiz_of(services, run_id, stored))}

        @handler
        def guess(event: gr.EventData, run_id: str, stored: Component) -> Updates:
            head = told_by(event).get("head")
            quiz = actions.quiz_of(services, run_id, stored)
            return updates(actions.predict(services, quiz, head if isinstance(head, int) and head >= 0 else None))

        @handler
        def again(run_id: str, stored: Component) -> Updates:
            return updates(actions.again(actions.quiz_of(services, run_id, stored)))

        inputs, outputs = [run, store], [self.view, store]
        context.signals.follow([*opened, run.change], show, inputs, [self.view])
        self.view.guess(guess, inputs, outputs, trigger_mode="once", concurrency_id=MODEL_QUEUE, **QUIET)
        self.view.again(again, inputs, outputs, **QUIET)
