"""Listeners that work only while the Learn page is open: they would load a model that nobody looks at."""

from collections.abc import Callable, Sequence

import gradio as gr

from ...page.context import Context
from ...page.handlers import Component

PAGE = "learn"
IS_OPEN = f"(_, ...values) => [window.studio.page === '{PAGE}' ? 'yes' : '', ...values]"


class OpenPage:
    """Whether the page is open, asked of the browser at each event."""

    def __init__(self, context: Context) -> None:
        self._context = context
        with gr.Column(elem_classes=["off"]):
            self._is_open = gr.Textbox("", label="Open")

    def follow(
        self,
        changes: Sequence[Callable[..., object]],
        function: Callable[..., object],
        inputs: Sequence[Component],
        outputs: Sequence[Component],
        queue: str | None = None,
    ) -> gr.events.Dependency:
        """As `Signals.follow`; the function gets first whether the page is open.

        Args:
            queue: the id of the queue in which its calls wait; None: one of its own.
        """
        given = [self._is_open, *inputs]
        return self._context.signals.follow(changes, function, given, list(outputs), js=IS_OPEN, concurrency_id=queue)
