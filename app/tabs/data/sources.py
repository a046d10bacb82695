"""Where a dataset comes from: files, the Hugging Face Hub, or the demo."""

from collections.abc import Iterator

import gradio as gr

from hydralora.data.sources import FORMATS, SUFFIXES
from hydralora.data.store import DEMO
from hydralora.errors import HydraError

from ...actions import data as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Updates, arrival, cancel_then, handler
from ...page.text import say, sentence
from ...services.background import Done
from .columns import Columns

VIEW = "dataset"  # the kind of request that shows a dataset
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

        def supersede(request: gr.Request) -> None:
            """A view of the dataset that was there before must not fill the columns of these files."""
            services.sessions.newest(request.session_hash or "", VIEW, arrived=arrival(request))

        @handler
        def keep(request: gr.Request, files: list[str]) -> Iterator[Updates]:
            supersede(request)
            for updates in self._follow(context, columns, actions.upload(services, files)):
                yield updates | {self.upload: None}  # the zone takes another file at once

        @handler
        def fetch(request: gr.Request, name: str) -> Iterator[Updates]:
            supersede(request)
            yield from self._follow(context, columns, actions.fetch(services, name))

        @handler
        def remap(dataset_id: str, files: list[str], *chosen: str) -> Iterator[Updates]:
            mapping = dict(zip(columns.fields, (value or actions.NONE for value in chosen), strict=True))
            steps = actions.upload(services, files, mapping) if files else actions.remap(services, dataset_id, mapping)
            yield from self._follow(context, columns, steps)

        fields = list(columns.fields.values())
        outputs = [self.status, self.stop, context.dataset, columns.pending, columns.panel, *fields]
        uploading = self.upload.upload(keep, self.upload, [*outputs, self.upload], **QUIET)
        fetching = self.hub_name.submit(fetch, self.hub_name, outputs, **QUIET)
        mapping = columns.apply.click(remap, [context.dataset, columns.pending, *fields], outputs, **QUIET)
        self.demo.click(lambda: DEMO, None, context.dataset, **QUIET)
        cancel_then(
            self.stop.click,
            [uploading, fetching, mapping],
            lambda: {self.status: say("Stopped. Nothing was kept."), self.stop: gr.Button(visible=False)},
            [self.status, self.stop],
        )

    def _follow(
        self, context: Context, columns: Columns, steps: Iterator[str | actions.NeedsMapping | Done[str]]
    ) -> Iterator[Updates]:
        """The updates while files are read."""
        ended: Updates = {self.status: "", self.stop: gr.Button(visible=False)}
        try:
            for step in steps:
                if isinstance(step, str):
                    yield {self.status: say(step), self.stop: gr.Button(visible=True)}
                elif isinstance(step, Done):
                    closed = gr.Accordion(open=False)
                    yield ended | {context.dataset: step.value, columns.pending: [], columns.panel: closed}
                else:
                    question = say(f"{step.message} Or map the columns below.")
                    waiting = {columns.pending: step.files, columns.panel: gr.Accordion(open=True)}
                    yield ended | {self.status: question} | waiting | columns.updates(step.columns, {})
        except HydraError as error:  # it stays until another file is read
            yield ended | {self.status: say(f"{error} {KEPT}")}
        except Exception:
            yield ended
            raise
