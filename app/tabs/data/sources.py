"""Where a dataset comes from: files, the Hugging Face Hub, or the demo."""

from collections.abc import Iterator

import gradio as gr

from hydralora.data.sources import FORMATS, SUFFIXES
from hydralora.data.store import DEMO
from hydralora.errors import HydraError

from ...actions import data as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Updates, cancel_then, handler
from ...page.text import say, sentence
from ...services.background import Done
from .columns import Columns

KEPT = "Nothing was added: the dataset below is the one that was there before."


class Sources:
    """Two cards: a person's own file, and the demo."""

    def __init__(self) -> None:
        with gr.Row(elem_id="data-cards"):
            with gr.Column(elem_classes=["card"], scale=3, min_width=320), gr.Row(elem_id="own-data"):
                self.upload = gr.File(
                    label="Your file",
                    file_count="multiple",
                    file_types=list(SUFFIXES),
                    type="filepath",
                    height=84,
                    min_width=280,
                    elem_id="upload",
                )
                with gr.Column(min_width=240):
                    self.hub_name = gr.Textbox(
                        label="Or a dataset of the Hugging Face Hub",
                        placeholder="owner/name:config@split",
                        submit_btn="Fetch",
                        max_lines=1,
                        elem_id="hub-name",
                    )
                    names = ", ".join(item.name for item in FORMATS.values())
                    sentence(f"{names}, also gzipped. Several files are one dataset.", elem_id="hint")
            with gr.Column(elem_classes=["card"], scale=1, min_width=220):
                sentence("Demo: 800 rows of four skills: reverse a list, extract JSON, add numbers, route messages.")
                self.demo = action_button("Use the demo", "use-demo", 150)
        with gr.Row(elem_id="reading-row"):
            self.status = sentence("", elem_id="reading")
            self.stop = action_button("Stop reading", "stop-reading", 140, visible=False)

    def wire(self, context: Context, columns: Columns) -> None:
        services = context.services

        @handler
        def keep(files: list[str]) -> Iterator[Updates]:
            for updates in self._follow(context, columns, actions.upload(services, files)):
                yield updates | {self.upload: None}  # the zone takes another file at once

        @handler
        def fetch(name: str) -> Iterator[Updates]:
            yield from self._follow(context, columns, actions.fetch(services, name))

        @handler
        def remap(dataset_id: str, pending: actions.NeedsMapping | None, *chosen: str) -> Iterator[Updates]:
            mapping = dict(zip(columns.fields, (value or actions.NONE for value in chosen), strict=True))
            if pending:
                steps = actions.upload(services, pending.files, mapping)
            else:
                steps = actions.remap(services, dataset_id, mapping)
            yield from self._follow(context, columns, steps)

        def use_demo() -> Updates:
            """Also in place of files that wait for their mapping."""
            return self._chosen(context, columns, DEMO)

        outputs = [self.status, self.stop, context.dataset, columns.pending, columns.panel]
        uploading = self.upload.upload(keep, self.upload, [*outputs, self.upload], **QUIET)
        fetching = self.hub_name.submit(fetch, self.hub_name, outputs, **QUIET)
        mapping = columns.apply.click(
            remap, [context.dataset, columns.pending, *columns.fields.values()], outputs, **QUIET
        )
        self.demo.click(use_demo, None, outputs, **QUIET)
        cancel_then(
            self.stop.click,
            [uploading, fetching, mapping],
            lambda: {self.status: say("Stopped. Nothing was kept."), self.stop: gr.Button(visible=False)},
            [self.status, self.stop],
        )

    def _ended(self) -> Updates:
        return {self.status: "", self.stop: gr.Button(visible=False)}

    def _chosen(self, context: Context, columns: Columns, dataset_id: str) -> Updates:
        """The updates that choose a dataset: nothing waits for its mapping any more."""
        mapped = {columns.pending: None, columns.panel: gr.Accordion(open=False)}
        return self._ended() | mapped | {context.dataset: dataset_id}

    def _follow(
        self, context: Context, columns: Columns, steps: Iterator[str | actions.NeedsMapping | Done[str]]
    ) -> Iterator[Updates]:
        """The updates while files are read."""
        try:
            for step in steps:
                if isinstance(step, str):
                    yield {self.status: say(step), self.stop: gr.Button(visible=True)}
                elif isinstance(step, Done):
                    yield self._chosen(context, columns, step.value)
                else:
                    question = say(f"{step.message} Or map the columns below.")
                    waiting = {columns.pending: step, columns.panel: gr.Accordion(open=True)}
                    yield self._ended() | {self.status: question} | waiting
        except HydraError as error:  # it stays until another file is read
            yield self._ended() | {self.status: say(f"{error} {KEPT}")}
        except Exception:
            yield self._ended()
            raise
