"""The chosen run's export, evaluation on a file, and answers to a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import gradio as gr

from hydralora.data.sources import SUFFIXES
from hydralora.transfer import can_push

from ...actions.runs import files as actions
from ...page.buttons import action_button, download_button, upload_button
from ...page.handlers import QUIET, Component, Updates, cancel_then, handler
from ...page.text import say, sentence
from ...services import Services
from ...services.background import Done

T = TypeVar("T")


class RunFiles:
    """Buttons that export the run, evaluate it on a file, and answer a file's rows."""

    def __init__(self) -> None:
        with gr.Row():
            formats = list(actions.FORMATS.items())
            self.format = gr.Dropdown(formats, value="adapter", label="Export", elem_id="export-format", min_width=280)
            self.write = action_button("Write the file", "export", 160)
            self.download = download_button("Download", "export-file", 160, visible=False)
        with gr.Row(visible=can_push()):
            self.repository = gr.Textbox(
                label="Repository of the Hugging Face Hub", placeholder="owner/name", max_lines=1, elem_id="repository"
            )
            self.push = action_button("Upload as private", "push", 180)
        with gr.Row():
            self.measure = upload_button("Evaluate on a file", "evaluate-file", SUFFIXES, 200, size="md")
            self.ask = upload_button("Answer a file's rows", "answer-file", SUFFIXES, 200, size="md")
            self.answers = download_button("Download the answers", "answers-file", 200, visible=False)
            self.stop = action_button("Stop", "stop-file", 100, visible=False)
        self.status = sentence("", elem_id="export-told")
        self.scores = gr.Dataframe(
            headers=actions.SCORE_COLUMNS,
            wrap=True,
            interactive=False,
            visible=False,
            elem_id="scores",
            label="Scores on the file",
        )

    @property
    def outputs(self) -> list[Component]:
        """What `updates` fills."""
        return [self.write, self.measure, self.ask, self.push, self.download, self.answers, self.status, self.scores]

    def updates(self, has_adapter: bool, another: bool) -> Updates:
        """The buttons' states; with `another` run selected, the results of the previous one are removed."""
        buttons = (self.write, self.measure, self.ask, self.push)
        able = {button: type(button)(interactive=has_adapter) for button in buttons}
        if not another:
            return able
        hidden = {result: type(result)(visible=False) for result in (self.download, self.answers, self.scores)}
        return able | hidden | {self.status: ""}

    def wire(self, services: Services, run: gr.Textbox) -> None:
        @handler
        def export(run_id: str, form: str) -> Iterator[Updates]:
            yield from self._follow(actions.export(services, run_id, form), self._offered(self.download))

        @handler
        def evaluate(run_id: str, file: str) -> Iterator[Updates]:
            steps = actions.evaluate(services, run_id, file)
            yield from self._follow(steps, lambda rows: {self.scores: gr.Dataframe(value=rows, visible=True)})

        @handler
        def answer(run_id: str, file: str) -> Iterator[Updates]:
            yield from self._follow(actions.answers(services, run_id, file), self._offered(self.answers))

        @handler
        def push(run_id: str, repository: str) -> str:
            return say(actions.push(services, run_id, repository))

        going: list[Component] = [
            self.write.click(export, [run, self.format], [self.status, self.download, self.stop], **QUIET),
            self.measure.upload(evaluate, [run, self.measure], [self.status, self.scores, self.stop], **QUIET),
            self.ask.upload(answer, [run, self.ask], [self.status, self.answers, self.stop], **QUIET),
        ]
        ended = [self.status, self.stop]
        for event in going:
            event.failure(lambda: self._ended(""), None, ended, **QUIET)
        cancel_then(self.stop.click, going, lambda: self._ended("Stopped."), ended)
        self.push.click(push, [run, self.repository], self.status, api_visibility="private")

    def _follow(self, steps: Iterator[str | Done[tuple[str, T]]], show: Callable[[T], Updates]) -> Iterator[Updates]:
        for step in steps:
            if isinstance(step, Done):
                text, result = step.value
                yield self._ended(text) | show(result)
            else:
                yield {self.status: say(step), self.stop: gr.Button(visible=True)}

    def _ended(self, text: str) -> Updates:
        return {self.status: say(text), self.stop: gr.Button(visible=False)}

    def _offered(self, button: gr.DownloadButton) -> Callable[[Path], Updates]:
        return lambda path: {button: gr.DownloadButton(value=path, visible=True)}
