"""Listeners that follow what a person changes: each has one event of its own, fired after a burst of changes.

Two listeners of one event that both wait for their last change (`trigger_mode="always_last"`, Gradio's default for
`change`) can call each other for ever: the page repeats the whole event of a listener that waited, not that listener
alone. Gradio also calls the listeners of an event one after another. With an event for each, none waits for another.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import EventListener

from .handlers import QUIET, Component

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
FIRE = (
    "() => { const of = [%s, %s]; window.fireSignal ? window.fireSignal(...of) : (window.signalsDue ??= []).push(of); }"
)


class Signals:
    """The events of all listeners of a page. Create it at the top of the page: in a tab it is created too late.

    Attributes:
        page: the page of the studio whose listeners are being made. They are called once it is open: until then nothing
            is computed or sent for it. None for those that are called at any time.
    """

    def __init__(self) -> None:
        self._panel = gr.HTML("", js_on_load=SCRIPT, elem_classes=["signals"])
        self._count = 0
        self.page: str | None = None

    def follow(
        self,
        changes: Sequence[Callable[..., object]],
        function: Callable[..., object] | None,
        inputs: Component,
        outputs: Component,
        **more: Any,
    ) -> gr.events.Dependency:
        """Call a function after any of these events, at most once for a burst of them: the last change counts.

        Args:
            changes: events such as `run.change` and `tab.select`, or ends of listeners such as `found.success`. The
                function gets no event data.
            more: arguments of the listener, such as `show_progress`.
        """
        self._count += 1
        name = f"signal_{self._count}"
        fire = {"js": FIRE % (json.dumps(name), json.dumps(self.page))} | QUIET
        ends = [change for change in changes if isinstance(change, partial)]
        if events := [change for change in changes if change not in ends]:
            gr.on(events, None, None, None, **fire)
        for end in ends:
            end(None, None, None, **fire)
        listener = EventListener(event_name=name).listener
        return listener(self._panel, function, inputs, outputs, **(QUIET | {"trigger_mode": "always_last"} | more))
