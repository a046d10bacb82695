"""Saving answers, opening them, and restoring them after a reload."""

from pathlib import Path

import gradio as gr

from ...actions.chat import answers as answer_actions
from ...actions.chat import saving as actions
from ...page.buttons import download_button, upload_button
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler
from ...services import Services
from .conversation import Conversation


class Saving:
    """Buttons that save an answer as a file, and open one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Row():
            self.trace = download_button("Save the answer", "save-trace", 140, interactive=False, size="sm")
            self.page = download_button("Save as a page with replay", "save-page", 220, interactive=False, size="sm")
            self.saved = upload_button("Open a saved answer", "open-trace", [".json"], 180)

    @property
    def outputs(self) -> list[gr.DownloadButton]:
        return [self.trace, self.page]

    def closed(self) -> Updates:
        return dict.fromkeys(self.outputs, gr.DownloadButton(interactive=False))

    def offer_after(self, event: gr.events.Dependency, answers: gr.State) -> None:
        """After an event, offer the selected answer for saving; not while it grows, or each token would write it."""

        @handler
        def write(answer_ids: dict[str, str]) -> Updates:
            answer_id = answer_actions.watched(self._services, answer_ids)
            if answer_id is None:
                return self.closed()
            trace, page = actions.save(self._services, answer_id), actions.save_page(self._services, answer_id)
            return {
                self.trace: gr.DownloadButton(value=trace, interactive=True),
                self.page: gr.DownloadButton(value=page, interactive=True),
            }

        event.then(write, answers, self.outputs, **QUIET)

    def wire(self, context: Context, conversation: Conversation, tab: gr.Tab, store: gr.BrowserState) -> None:
        """The browser keeps the ids of its answers, the server their contents."""
        answers, chosen = conversation.answers, conversation.choices.chosen

        @handler
        def reopen(answer_ids: dict[str, str], kept_ids: dict[str, str]) -> Updates:
            view = actions.reopen(self._services, kept_ids) if kept_ids and not answer_ids else None
            if view is None:
                return gr.skip()
            return conversation.updates(view) | {chosen: gr.CheckboxGroup(value=list(view.columns))}

        @handler
        def open_saved(file: str) -> Updates:
            view = actions.replay(self._services, Path(file))
            return conversation.updates(view) | {chosen: gr.CheckboxGroup(value=["run"])}

        context.signals.follow([answers.change], lambda answer_ids: answer_ids, answers, store)
        outputs = [*conversation.outputs, chosen]
        self.offer_after(tab.select(reopen, [answers, store], outputs, **QUIET), answers)
        self.offer_after(self.saved.upload(open_saved, self.saved, outputs, **QUIET), answers)
