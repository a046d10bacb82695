"""The question: prompt, held-out rows to try and sampling; sending, stopping and repeating it."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hydralora.data.examples import Message
from hydralora.inference.generation import Sampling

from ...actions.chat import columns as column_actions
from ...actions.chat import conversation as actions
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, cancel_then, handler, latest
from ...page.text import say, sentence
from ...services import MODEL_QUEUE, Services
from .conversation import Conversation
from .saving import Saving

CHATTERS = 8  # answers at once; those of one model share it, a token at a time


class HeldOutRows:
    """Rows to try; a click sends one."""

    def __init__(self) -> None:
        with gr.Accordion("Held-out rows: click one to send it", open=True, elem_id="heldout-rows"):
            self.rows = gr.Dataframe(
                headers=["prompt", "expected answer"],
                column_widths=["62%", "38%"],
                wrap=True,
                interactive=False,
                max_height=150,
                show_label=False,
                buttons=[],
                elem_id="prompts",
            )

    def wire(self, context: Context, tab: gr.Tab) -> None:
        @handler
        def prepare(dataset_id: str) -> list[list[str]]:
            return actions.prompts(context.services, dataset_id)

        context.signals.follow([tab.select, context.dataset.change], prepare, context.dataset, self.rows)


class Question:
    """The prompt and the buttons around it."""

    def __init__(self) -> None:
        with gr.Row():
            self.prompt = gr.Textbox(
                placeholder="Ask a question", show_label=False, lines=1, max_lines=6, scale=6, elem_id="prompt"
            )
            self.send = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
            self.stop = gr.Button("Stop", scale=1, min_width=90, elem_id="chat-stop")
        with gr.Row():
            self.again = gr.Button("Answer again", size="sm", min_width=120, scale=0, elem_id="chat-again")
            self.edit = gr.Button("Edit the question", size="sm", min_width=140, scale=0, elem_id="chat-edit")
            self.clear = gr.Button("Clear", size="sm", min_width=90, scale=0, elem_id="clear")
            self.free = gr.Button("Free memory", size="sm", min_width=120, scale=0, elem_id="chat-free")
            self.length = sentence("", elem_id="prompt-length")
        self.expected = sentence("", elem_id="expected")

    def wire(
        self, context: Context, conversation: Conversation, options: "Options", saving: Saving, rows: HeldOutRows
    ) -> None:
        """Send, stop, repeat or edit the question; clear the conversation."""
        asking = self._asking(context, conversation, options, saving)
        histories, prompt = conversation.histories, self.prompt

        def take_back(conversations: dict[str, list[Message]]) -> Updates:
            question, updates = conversation.without_last(conversations)
            return updates | {prompt: question}

        @handler
        def take_row(table: gr.SelectData) -> Updates:
            question, expected = table.row_value[0], table.row_value[1]
            return {prompt: question, self.expected: say(f"Expected answer: {expected}")}

        taken_back = [prompt, histories, *(column.chatbot for column in conversation.columns.values())]
        typed = gr.on([self.send.click, prompt.submit], **asking)
        row = rows.rows.select(take_row, None, [prompt, self.expected], api_visibility="private").then(**asking)
        repeated = self.again.click(take_back, histories, taken_back, **QUIET).then(**asking)
        self.edit.click(take_back, histories, taken_back, **QUIET)
        going: list[Any] = [typed, row, repeated]
        note = say("Stopped. What was answered so far is kept.")
        stopped = cancel_then(self.stop.click, going, lambda: note, conversation.status)
        for event in (*going, stopped):
            saving.offer_after(event, conversation.answers)
        cancel_then(
            self.clear.click,
            going,
            lambda: conversation.emptied() | saving.closed() | {self.expected: ""},
            [*conversation.outputs, *conversation.gates.selection, self.expected, *saving.outputs],
        )
        self.free.click(lambda: say(actions.free_memory(context.services)), None, conversation.status, **QUIET)
        self._measure(context, conversation, options)

    def _measure(self, context: Context, conversation: Conversation, options: "Options") -> None:
        """Show the conversation's length with this prompt."""

        @handler
        def measure(
            run_id: str | None, model: str, prompt: str, system: str, histories: dict[str, list[Message]]
        ) -> str:
            return say(actions.length_line(context.services, run_id, model, prompt, system, histories))

        inputs = [context.run, context.model, self.prompt, options.system, conversation.histories]
        context.signals.follow([self.prompt.change, options.system.change], measure, inputs, self.length)

    def _asking(
        self, context: Context, conversation: Conversation, options: "Options", saving: Saving
    ) -> dict[str, Any]:
        """The arguments of the listener that answers."""
        answer = _answering(context.services, self, conversation, options, saving)
        choices = conversation.choices
        who = [context.run, context.model, choices.chosen, choices.other, conversation.histories]
        return {
            "fn": answer,
            "inputs": [self.prompt, *who, options.system, *options.sampling, *choices.steering.fields],
            "outputs": [*conversation.outputs, *conversation.gates.selection, self.prompt, *saving.outputs],
            "concurrency_id": MODEL_QUEUE,
            "concurrency_limit": CHATTERS,
            "show_progress": "hidden",
            "api_visibility": "private",
        }


def _answering(
    services: Services, question: Question, conversation: Conversation, options: "Options", saving: Saving
) -> Component:
    steering, status = conversation.choices.steering, conversation.status

    @latest(services, "chat")
    def stream(
        prompt: str,
        run_id: str | None,
        model: str,
        chosen: list[str],
        other: str | None,
        histories: dict[str, list[Message]],
        system: str,
        *inputs: Component,
    ) -> Iterator[Updates]:
        sampling, gates = options.read(*inputs[: len(options.sampling)]), inputs[len(options.sampling) :]
        yield {status: say("Loading the model …")} | conversation.gates.unselected() | saving.closed()
        try:
            steered = steering.read(*gates) if "steered" in chosen else None
            columns = column_actions.columns(services, chosen, run_id, model, other, steered)
        except Exception:
            yield {status: ""}  # nothing is loading any more
            raise
        emptied: Updates = {question.prompt: ""}  # once the question is in the conversation
        for view in actions.stream(services, columns, histories, prompt, sampling, system):
            yield conversation.updates(view) | emptied
            emptied = {}

    @handler
    def answer(request: gr.Request, prompt: str, *inputs: Component) -> Iterator[Updates]:
        actions.check_prompt(prompt)  # an empty prompt must not end another answer
        yield from stream(request, prompt, *inputs)

    return answer


class Options:
    """Sampling and the system prompt."""

    def __init__(self) -> None:
        with gr.Accordion("Sampling, system prompt", open=False):
            with gr.Row():
                self.sampling: list[Component] = [
                    gr.Slider(1, 2048, value=128, step=1, label="Longest answer, tokens", elem_id="length"),
                    gr.Slider(0, 2, value=0, step=0.1, label="Temperature (0: always the likeliest token)"),
                    gr.Slider(0.05, 1, value=1, step=0.05, label="Top p"),
                    gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="chat-seed"),
                ]
            self.system = gr.Textbox("", label="System prompt", lines=1, max_lines=6, elem_id="system")

    @staticmethod
    def read(longest: float, temperature: float, top_p: float, seed: float | None) -> Sampling:
        return Sampling(int(longest), temperature, top_p, int(seed or 0))
