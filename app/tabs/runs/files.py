"""What leaves the chosen run as a file, and the files that it is measured on, or answers."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from hydralora.data.sources import SUFFIXES
from hydralora.transfer import can_push

from ...actions.runs import table as actions
from ...page.buttons import upload_button
from ...page.text import QUIET, say, sentence, shown, shown_stream
from ...services import Services
from ...services.background import Done


def build(services: Services, run: gr.Dropdown) -> tuple[list[Any], Callable[[bool, bool], dict[Any, Any]]]:
    """Buttons that write the run into a file, measure it on one, or let it answer one."""
    with gr.Row():
        form = gr.Dropdown(
            list(actions.FORMATS.items()), value="adapter", label="Export", elem_id="export-format", min_width=280
        )
        write = gr.Button("Write the file", elem_id="export", size="md", scale=0, min_width=160)
        download = gr.DownloadButton(
            "Download", visible=False, elem_id="export-file", size="md", scale=0, min_width=160
        )
    push, repository = _hub()
    with gr.Row():
        measure = upload_button("Evaluate on a file", "evaluate-file", SUFFIXES, 200, size="md")
        ask = upload_button("Answer a file's rows", "answer-file", SUFFIXES, 200, size="md")
        answers = gr.DownloadButton(
            "Download the answers", visible=False, elem_id="answers-file", size="md", scale=0, min_width=200
        )
        stop = gr.Button("Stop", visible=False, elem_id="stop-file", size="md", scale=0, min_width=100)
    told = sentence("", elem_id="export-told")
    scores = gr.Dataframe(
        headers=actions.SCORE_COLUMNS,
        wrap=True,
        interactive=False,
        visible=False,
        elem_id="scores",
        label="On that file",
    )

    def follow(steps: Iterator[Any], show: Callable[[Any], dict[Any, Any]]) -> Iterator[dict[Any, Any]]:
        for step in steps:
            if isinstance(step, Done):
                sentence, result = step.value
                yield {told: say(sentence), stop: gr.Button(visible=False), **show(result)}
            else:
                yield {told: say(step), stop: gr.Button(visible=True)}

    @shown_stream
    def export(run_id: str, form: str) -> Iterator[dict]:
        steps = actions.export(services, run_id, form)
        yield from follow(steps, lambda path: {download: gr.DownloadButton(value=path, visible=True)})

    @shown_stream
    def evaluate(run_id: str, file: str) -> Iterator[dict]:
        steps = actions.evaluate(services, run_id, file)
        yield from follow(steps, lambda rows: {scores: gr.Dataframe(value=rows, visible=True)})

    @shown_stream
    def answer(run_id: str, file: str) -> Iterator[dict]:
        steps = actions.answers(services, run_id, file)
        yield from follow(steps, lambda path: {answers: gr.DownloadButton(value=path, visible=True)})

    upload = shown(lambda run_id, name: say(actions.push(services, run_id, name)))
    push.click(upload, [run, repository], told, api_visibility="private")
    going: list[Any] = [
        write.click(export, [run, form], [told, download, stop], **QUIET),
        measure.upload(evaluate, [run, measure], [told, scores, stop], **QUIET),
        ask.upload(answer, [run, ask], [told, answers, stop], **QUIET),
    ]
    for event in going:
        event.failure(lambda: ("", gr.Button(visible=False)), None, [told, stop], **QUIET)
    stop.click(lambda: (say("Stopped."), gr.Button(visible=False)), None, [told, stop], cancels=going, **QUIET)

    def update(has_adapter: bool, another: bool) -> dict[Any, Any]:
        """What becomes of the buttons, and where `another` run is looked at, of what was made of the one before."""
        able = {button: type(button)(interactive=has_adapter) for button in (write, measure, ask, push)}
        if not another:
            return able
        made = {made: type(made)(visible=False) for made in (download, answers, scores)}
        return able | made | {told: ""}

    return [write, measure, ask, push, download, answers, told, scores], update


def _hub() -> tuple[gr.Button, gr.Textbox]:
    """Where the run is uploaded to; drawn only where there is a token."""
    with gr.Row(visible=can_push()):
        repository = gr.Textbox(
            label="Repository of the Hugging Face Hub", placeholder="owner/name", max_lines=1, elem_id="repository"
        )
        push = gr.Button("Upload it, private", elem_id="push", size="md", scale=0, min_width=180)
    return push, repository
