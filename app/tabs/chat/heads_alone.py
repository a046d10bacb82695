"""The part "Which head does this?" of Chat."""

from collections.abc import Iterator

import gradio as gr

from ...actions.chat import heads_alone as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Updates, arrival, handler, latest
from ...page.text import say, sentence
from ...services import MODEL_QUEUE

KIND = "heads alone"


class HeadsAlone:
    """Each head of the chosen run answers alone, beside the router."""

    def __init__(self) -> None:
        with gr.Accordion("Which head does this?", open=False, elem_id="alone"):
            self.questions = gr.Textbox(
                "", label="Questions, one per line", lines=3, max_lines=actions.MOST, elem_id="alone-questions"
            )
            with gr.Row():
                self.start = action_button("Ask each head alone", "alone-start", 230, variant="primary", size="lg")
                self.stop = action_button("Stop", "alone-stop", 90, size="lg")
                self.fill = action_button("One question per component", "alone-examples", 240, size="lg")
            self.status = sentence(
                "The router mixes the heads for every token. Here each head of the chosen run answers alone, with the "
                "whole weight, to show what it has learnt.",
                elem_id="alone-sentence",
            )
            self.summary = gr.Dataframe(
                interactive=False,
                visible=False,
                wrap=True,
                elem_id="alone-summary",
                label="KL from the routed model",
            )
            self.answers = gr.Dataframe(
                headers=actions.ANSWER_COLUMNS,
                interactive=False,
                visible=False,
                wrap=True,
                elem_id="alone-answers",
                label="Answers",
            )

    def wire(self, context: Context, system: gr.Textbox) -> None:
        services, run = context.services, context.run

        @latest(services, KIND, about_run=True)
        def ask(run_id: str | None, questions: str, system: str) -> Iterator[Updates]:
            for view in actions.ask(services, run_id, questions, system):
                summary = {"headers": view.columns, "data": view.summary}
                yield {
                    self.status: say(view.sentence),
                    self.summary: gr.Dataframe(value=summary, visible=bool(view.summary)),
                    self.answers: gr.Dataframe(value=view.answers, visible=bool(view.answers)),
                }

        @handler
        def examples(run_id: str | None) -> Iterator[Updates]:
            for step in actions.examples(services, run_id):
                if isinstance(step, str):
                    yield {self.status: say(step)}
                else:
                    lines = [actions.as_line(question) for question in step]
                    text = f"{len(step)} held-out questions, each from a different component."
                    yield {self.status: say(text), self.questions: "\n".join(lines)}

        def forget(request: gr.Request, run_id: str | None) -> Updates:
            if not services.sessions.switch_to(request.session_hash or "", KIND, run_id, arrival(request)):
                return gr.skip()
            hidden = gr.Dataframe(visible=False)
            return {self.status: say("Ask each head of the chosen run."), self.summary: hidden, self.answers: hidden}

        outputs = [self.status, self.summary, self.answers]
        inputs = [run, self.questions, system]
        asking = self.start.click(ask, inputs, outputs, concurrency_id=MODEL_QUEUE, trigger_mode="multiple", **QUIET)
        self.fill.click(examples, run, [self.status, self.questions], trigger_mode="once", **QUIET)
        self.stop.click(None, None, None, cancels=[asking])
        context.signals.follow([run.change], forget, run, outputs)
