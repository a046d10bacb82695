"""State that the page keeps in the browser. It is written at once, so a reload at any time finds it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gradio as gr

from .handlers import QUIET, Component

SECRET = "kept"  # the state is not secret; a fixed key lets it outlive the server


def browser_state(key: str, empty: dict[str, object] | list[object]) -> gr.BrowserState:
    """A dictionary or a list in the browser's store. Create it at the top of the page: inside a tab it is too late."""
    return gr.BrowserState(empty, storage_key=key, secret=SECRET)


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

    def restore(
        self,
        page: gr.Blocks,
        recall: Callable[..., object] | None,
        fields: Mapping[str, Component],
        together: bool = False,
    ) -> Component:
        """Fill the fields with what is kept when the page opens; `keep` writes nothing before that.

        A field that a person has changed before the server has answered keeps what it has. Call it before adding other
        load listeners, so that it need not wait for them. Returns the event after it.

        Args:
            recall: makes of what is stored what shall be kept, by name: a dictionary. None keeps it unchanged, without
                asking the server.
            fields: by the name under which they are kept.
            together: whether all of them keep what they have once one was changed.
        """
        opened = page.load(recall, self.state, self.state, **QUIET).then if recall else page.load
        drawn = [field.value for field in fields.values()]
        values = [self.state, *fields.values()]
        return opened(None, values, values, js=self._script("begin", list(fields), drawn, together), **QUIET)

    def _script(self, function: str, *arguments: object) -> str:
        return f"(...values) => browserState.{function}({self._arguments(*arguments)}, ...values)"

    def _arguments(self, *arguments: object) -> str:
        return ", ".join(json.dumps(argument) for argument in (self.state.storage_key, *arguments))
