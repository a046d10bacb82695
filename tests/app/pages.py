"""An open page without a browser: what its listeners answer, by the server's own way."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import httpx

from app.services import Services
from app.ui import build


class RefusedError(Exception):
    """The page would show an error."""


@dataclass
class Page:
    """One session. What a real page holds of its widgets is given at each call; states are the server's.

    Attributes:
        warned: the warnings so far.
    """

    blocks: gr.Blocks
    url: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    warned: list[str] = field(default_factory=list)

    def tell(self, listener: str, *held: Any, fills: str, event: Any = None, query: str = "") -> dict[str, Any]:
        """Call the listener with this name that fills `fills`, "" for any; its answer by the filled widgets' names.

        Raises:
            RefusedError: the page would show an error.
        """
        number, function = next(
            (number, fn)
            for number, fn in self.blocks.fns.items()
            if fn.name == listener and (not fills or fills in map(_name, fn.outputs))
        )
        asked = {"data": list(held), "fn_index": number, "session_hash": self.session, "event_data": event}
        httpx.post(f"{self.url}gradio_api/queue/join{query}", json=asked).raise_for_status()
        with httpx.stream("GET", f"{self.url}gradio_api/queue/data", params={"session_hash": self.session}) as lines:
            told = [json.loads(line.removeprefix("data:")) for line in lines.iter_lines() if line]
        self.warned += [message["log"] for message in told if message["msg"] == "log"]
        (done,) = (message for message in told if message["msg"] == "process_completed")
        if not done["success"]:
            raise RefusedError(done["output"]["error"])
        filled = map(_name, function.outputs)
        return {name: value for name, value in zip(filled, done["output"]["data"], strict=True) if name}


def _name(block: Any) -> str | None:
    """What tests call a widget by: its id, or its key where the browser keeps it."""
    return getattr(block, "storage_key", None) or getattr(block, "elem_id", None)


@contextmanager
def open_page(services: Services) -> Iterator[Page]:
    """The app's page, served by this process."""
    blocks = build(services)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    try:
        yield Page(blocks, url)
    finally:
        blocks.close()
