"""What the page keeps in the browser: written there at once, so that a reload at any time finds it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from .handlers import QUIET, Component

SCRIPT = Path(__file__).with_suffix(".js")
SECRET = "kept"  # what is kept is no secret; a fixed key lets it outlive the server


def browser_state(key: str) -> gr.BrowserState:
    """A dictionary in the browser's store; at the top of the page only, a tab is made too late."""
    return gr.BrowserState({}, storage_key=key, secret=SECRET)


@dataclass(frozen=True)
class KeptChoices:
    """Choices by name that the browser keeps.

    Gradio tells an event's listeners one after another, and waits for each: `keep` comes before all other listeners of
    its event, else a reload in the meantime loses what was chosen.
    """

    state: gr.BrowserState

    def keep(self, name: str, event: Callable[..., object], source: Component) -> None:
        """Keep, under `name`, what `source` holds at an event."""
        event(None, [self.state, source], self.state, js=self._script("keep", name, False), **QUIET)

    def keep_value(self, name: str, event: Callable[..., object], value: str, by_hand: bool = False) -> None:
        """Keep a fixed value at an event; `by_hand` where only a person fires it."""
        script = f"stored => browserState.keep({self._arguments(name, by_hand)}, stored, {json.dumps(value)})"
        event(None, self.state, self.state, js=script, **QUIET)

    def keep_all(self, fields: Mapping[str, Component]) -> None:
        """Keep what each of the fields holds, under its name."""
        for name, field in fields.items():
            self.keep(name, field.change, field)

    def restore(self, page: gr.Blocks, fill: Callable[..., object], outputs: Sequence[Component]) -> Component:
        """Fill `outputs` by fill(what was kept) when the page opens; from then on, and not before, `keep` may write.

        Called before the page's other listeners to its opening, it need not wait for them. Returns the event after it.
        """
        opened = page.load(fill, self.state, list(outputs), **QUIET)
        return opened.then(None, self.state, self.state, js=self._script("begin"), **QUIET)

    def open_tab(self, after: Component) -> None:
        """Open the tab that was open, after an event."""
        after.then(None, self.state, self.state, js=self._script("openTab"), **QUIET)

    def _script(self, function: str, *arguments: object) -> str:
        return f"(...values) => browserState.{function}({self._arguments(*arguments)}, ...values)"

    def _arguments(self, *arguments: object) -> str:
        return ", ".join(json.dumps(argument) for argument in (self.state.storage_key, *arguments))
