"""State that the page keeps in the browser. It is written at once, so a reload at any time finds it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gradio as gr

from .handlers import QUIET, Component

SECRET = "kept"  # the state is not secret; a fixed key lets it outlive the server


def browser_state(key: str) -> gr.BrowserState:
    """A dictionary in the browser's store. Create it at the top of the page: inside a tab it is created too late."""
    return gr.BrowserState({}, storage_key=key, secret=SECRET)


@dataclass(frozen=True)
class KeptChoices:
    """Choices by name that the browser keeps.

    Gradio calls an event's listeners one after another and waits for each. Call `keep` before adding other listeners
    of the same event; otherwise a reload in between loses the choice.
    """

    state: gr.BrowserState

    def keep(self, name: str, event: Callable[..., object], source: Component) -> None:
        """Store the value of `source` under `name` at an event."""
        event(None, [self.state, source], self.state, js=self._script("keep", name), **QUIET)

    def keep_all(self, fields: Mapping[str, Component]) -> None:
        """Store the value of each field under its name."""
        for name, field in fields.items():
            self.keep(name, field.change, field)

    def restore(self, page: gr.Blocks, fill: Callable[..., object], outputs: Sequence[Component]) -> Component:
        """Fill `outputs` with fill(stored state) when the page opens; `keep` writes nothing before that.

        Call it before adding other load listeners, so that it need not wait for them. Returns the event after it.
        """
        opened = page.load(fill, self.state, list(outputs), **QUIET)
        return opened.then(None, self.state, self.state, js=self._script("begin"), **QUIET)

    def _script(self, function: str, *arguments: object) -> str:
        return f"(...values) => browserState.{function}({self._arguments(*arguments)}, ...values)"

    def _arguments(self, *arguments: object) -> str:
        return ", ".join(json.dumps(argument) for argument in (self.state.storage_key, *arguments))
