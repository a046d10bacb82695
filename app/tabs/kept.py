"""What the page keeps in the browser: written there at once, so that a reload at any time finds it."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from app.tabs.messages import QUIET

SECRET = "kept"  # what is kept is no secret; a fixed key lets it outlive the server


def browser_state(start: Any, key: str) -> gr.BrowserState:
    """A state that the browser keeps; at the top of the page only, in a tab it would be made too late."""
    return gr.BrowserState(start, storage_key=key, secret=SECRET)


def restore(page: gr.Blocks, state: gr.BrowserState, fn: Callable, outputs: Sequence[Any]) -> None:
    """Fill `outputs` by fn(what was kept) when the page opens; from then on, and not before, `keep` may write."""
    opened = page.load(fn, state, list(outputs), **QUIET)
    opened.then(None, js=f"() => {{ (window.restored ??= {{}})['{state.storage_key}'] = true; }}", **QUIET)


def keep(state: gr.BrowserState, events: Sequence[Any], now: Sequence[Any], js: str) -> None:
    """Keep what the JavaScript function `js`, of what was kept and the values of `now`, returns at `events`.

    Components that are made fire their events too, with their defaults: those of before `restore` are dropped.
    """
    guarded = f"(kept, ...now) => [window.restored?.['{state.storage_key}'] ? ({js})(kept, ...now) : kept]"
    gr.on(list(events), None, [state, *now], state, js=guarded, **QUIET)
