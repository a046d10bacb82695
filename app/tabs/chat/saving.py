"""Saving an answer, opening a saved one, and keeping the conversation across reloads."""

import json
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from ...actions.chat import saving as actions
from ...page.buttons import download_button, upload_button
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler, latest
from ...services import Services
from .conversation import Conversation, Kept, as_turns


class Saving:
    """Buttons that save the last turn: its tuned answer as a file, all its answers as a page that replays them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Row(elem_id="saving"):
            self.trace = download_button("Save the answer", "save-trace", 180, size="sm", interactive=False)
            self.page = download_button("Save as a page with replay", "save-page", 230, size="sm", interactive=False)
            self.saved = upload_button("Open a saved answer", "open-trace", (".json",), 190)

    @property
    def outputs(self) -> list[Component]:
        return [self.trace, self.page]

    def wire(
        self,
        context: Context,
        conversation: Conversation,
        tab: gr.Tab,
        store: gr.BrowserState,
        asking: Sequence[gr.events.Dependency],
    ) -> None:
        """The browser keeps the ids of its answers, the server their contents."""
        services, turns = self._services, conversation.turns

        @handler
        def reopen(values: Kept, stored: Kept) -> Updates:
            known = [] if values else actions.still_kept(services, as_turns(stored))
            return conversation.updates(services, known) if known else gr.skip()

        @handler
        def open_saved(file: str) -> Updates:
            return conversation.updates(services, [actions.replay(services, Path(file or ""))])

        @latest(services, "saved answer")
        def write(values: Kept) -> Updates:
            files = actions.save(services, as_turns(values))
            if files is None:
                return dict.fromkeys(self.outputs, gr.DownloadButton(interactive=False))
            trace, page = files
            return {
                self.trace: gr.DownloadButton(value=trace, interactive=True),
                self.page: gr.DownloadButton(value=page, interactive=True),
            }

        key = json.dumps(store.storage_key)
        kept = context.signals.follow([turns.change], lambda values: values, turns, store)
        kept.then(None, store, None, js=f"(kept) => {{ browserState.keepInWindow({key}, kept); return []; }}", **QUIET)
        own = f"(turns, kept) => [turns, browserState.ofWindow({key}, kept)]"
        tab.select(reopen, [turns, store], [turns, conversation.view], js=own, **QUIET)
        self.saved.upload(open_saved, self.saved, [turns, conversation.view], **QUIET)
        # A new turn takes the answer before it out of the buttons; the turn's own end puts its answers in.
        context.signals.follow([turns.change, *(event.then for event in asking)], write, turns, self.outputs)
