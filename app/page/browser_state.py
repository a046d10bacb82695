"""What the page keeps in the browser: written there at once, so that a reload at any time finds it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .text import QUIET

SECRET = "kept"  # what is kept is no secret; a fixed key lets it outlive the server


@dataclass(frozen=True)
class Kept:
    """Values by name that the browser keeps.

    Gradio tells an event's listeners one after another, and waits for each: `keep` comes before all other listeners of
    its event, else a reload in the meantime loses what was chosen.
    """

    state: gr.BrowserState

    def keep(self, name: str, event: Callable, source: Any = None, value: Any = None, by_hand: bool = False) -> None:
        """Keep, under `name`, what `source` holds at an event; without a source a fixed value.

        Components that are made fire their events too, with their defaults: those of before `restore` are dropped,
        unless only a person fires the event.
        """
        key, now = json.dumps(self.state.storage_key), json.dumps(value) if source is None else "now"
        early = f"((window.early ??= {{}})[{key}] ??= {{}})[{json.dumps(name)}] = {now};" if by_hand else ""
        js = (
            f"(kept, now) => {{ const held = window.held?.[{key}]; if (!held) {{ {early} return [kept]; }} "
            f"held[{json.dumps(name)}] = {now}; return [{{...held}}]; }}"
        )
        event(None, [self.state, *([] if source is None else [source])], self.state, js=js, **QUIET)

    def keep_all(self, fields: Mapping[str, Any]) -> None:
        """Keep what each of the fields holds, under its name."""
        for name, field in fields.items():
            self.keep(name, field.change, field)

    def restore(self, page: gr.Blocks, fn: Callable, outputs: Sequence[Any]) -> Any:
        """Fill `outputs` by fn(what was kept) when the page opens; from then on, and not before, `keep` may write.

        Called before the page's other listeners to its opening, it need not wait for them. Returns the event after it.
        """
        opened = page.load(fn, self.state, list(outputs), **QUIET)
        key = json.dumps(self.state.storage_key)
        begin = (
            f"kept => {{ const held = (window.held ??= {{}})[{key}] = {{...kept, ...window.early?.[{key}]}}; "
            "return [{...held}]; }"
        )
        return opened.then(None, self.state, self.state, js=begin, **QUIET)


def kept(key: str) -> Kept:
    """Values under a key of the browser's store."""
    return Kept(browser_state(key))


def browser_state(key: str) -> gr.BrowserState:
    """A dictionary in the browser's store; at the top of the page only, a tab is made too late."""
    return gr.BrowserState({}, storage_key=key, secret=SECRET)
