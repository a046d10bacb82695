"""Which head does this? A part of Chat."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...actions.chat import heads_alone as actions
from ...page.text import LATEST, QUIET, say, sentence, shown_stream, until_superseded
from ...services import MODEL_QUEUE, Services

KIND = "heads alone"


def build(services: Services, run: gr.Dropdown, system: gr.Textbox) -> None:
    with gr.Accordion("Which head does this?", open=False, elem_id="alone"):
        questions = gr.Textbox(
            "", label="Questions, one in each line", lines=3, max_lines=actions.MOST, elem_id="alone-questions"
        )
        with gr.Row():
            start = gr.Button("Ask each head alone", variant="primary", scale=0, min_width=230, elem_id="alone-start")
            stop = gr.Button("Stop", scale=0, min_width=90, elem_id="alone-stop")
            fill = gr.Button("One of each component", scale=0, min_width=240, elem_id="alone-examples")
        told = sentence(
            "The router mixes the heads for every token. Here each head of the chosen run answers alone, with the "
            "whole weight, so that what it has learnt can be read.",
            elem_id="alone-sentence",
        )
        summary = gr.Dataframe(interactive=False, visible=False, wrap=True, elem_id="alone-summary", label="How near")
        answers = gr.Dataframe(
            headers=actions.ANSWER_COLUMNS,
            interactive=False,
            visible=False,
            wrap=True,
            elem_id="alone-answers",
            label="What each answers",
        )

    @shown_stream
    def ask(request: gr.Request, run_id: str | None, questions: str, system: str) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", KIND, run_id)
        for view in until_superseded(is_newest, actions.ask(services, run_id, questions, system)):
            yield (
                gr.update(value=say(view.sentence)),
                gr.update(value={"headers": view.columns, "data": view.summary}, visible=bool(view.summary)),
                gr.update(value=view.answers, visible=bool(view.answers)),
            )

    @shown_stream
    def examples(run_id: str | None) -> Iterator[tuple]:
        for step in actions.examples(services, run_id):
            if isinstance(step, str):
                yield gr.update(value=say(step)), gr.update()
            else:
                yield (
                    gr.update(value=say(f"{len(step)} held-out questions, each of another component.")),
                    gr.update(value="\n".join(" ".join(question.splitlines()) for question in step)),
                )

    asked = start.click(
        ask,
        [run, questions, system],
        [told, summary, answers],
        concurrency_id=MODEL_QUEUE,
        trigger_mode="multiple",
        **QUIET,
    )
    fill.click(examples, run, [told, questions], trigger_mode="once", **QUIET)
    stop.click(None, None, None, cancels=[asked])

    def forget(request: gr.Request, run_id: str | None) -> Any:
        if not services.turns_to(request.session_hash or "", KIND, run_id):
            return gr.skip()
        return say("Ask each head of the chosen run."), *[gr.update(visible=False)] * 2

    run.change(forget, run, [told, summary, answers], **LATEST)
