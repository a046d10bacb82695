"""The question: prompt and example prompts; sending, stopping, repeating and changing it."""

import gradio as gr

from ...actions.chat import asking as actions
from ...actions.chat import examples as example_actions
from ...actions.chat.examples import ExamplePrompt
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, cancel_then, handler
from ...page.text import say, sentence
from ...widgets.chat import chips
from ...widgets.events import told_by
from .asking import Asking
from .conversation import Conversation, Kept, as_turns
from .options import Options


class Question:
    """The prompt, the examples above it, and the buttons around it."""

    def __init__(self) -> None:
        self.expected, self.rows = gr.State(""), gr.State([])
        with gr.Row(elem_id="chat-again-row"):
            self.again = action_button("Answer again", "chat-again", 110, size="sm")
            self.edit = action_button("Edit the question", "chat-edit", 130, size="sm")
            self.clear = action_button("Clear", "clear", 70, size="sm")
            self.free = action_button("Unload the model", "chat-free", 140, size="sm")
            self.told = sentence("", elem_id="chat-status")
        self.chips = chips("chips")
        with gr.Row(elem_id="ask-row"):
            self.prompt = gr.Textbox(
                placeholder="Ask a question",
                show_label=False,
                label="Prompt",
                lines=1,
                max_lines=4,
                scale=6,
                elem_id="prompt",
                elem_classes=["needs-run"],
                container=False,
            )
            self.send = gr.Button(
                "Send", variant="primary", scale=0, min_width=90, elem_id="send", elem_classes=["needs-run"]
            )
            self.stop = gr.Button("Stop", scale=0, min_width=90, elem_id="chat-stop")

    def wire(self, context: Context, tab: gr.Tab, conversation: Conversation, options: Options, asking: Asking) -> None:
        """Send, stop, repeat or change the question; clear the conversation."""
        services, prompt, expected, turns = context.services, self.prompt, self.expected, conversation.turns

        def take_back(values: Kept) -> Updates:
            known = as_turns(values)
            if not known:
                return gr.skip()
            *earlier, last = known
            return conversation.updates(services, earlier) | {prompt: last.question, expected: last.expected}

        @handler
        def take_example(rows: list[ExamplePrompt], event: gr.EventData) -> Updates:
            index = told_by(event).get("index")
            row = rows[index] if isinstance(index, int) and 0 <= index < len(rows) else None
            return {prompt: row["question"], expected: row["expected"]} if row else gr.skip()

        taken = [prompt, expected]
        back = [*asking.outputs, *taken]
        for event in (
            self.send.click,
            prompt.submit,
            self.chips.ask(take_example, self.rows, taken, **QUIET).then,
            self.again.click(take_back, turns, back, **QUIET).then,
        ):
            asking.listen(event, prompt, expected)
        self.edit.click(take_back, turns, back, **QUIET)
        note = say(actions.STOPPED)
        cancel_then(self.stop.click, asking.events, lambda: note, self.told)
        emptied = [*asking.outputs, expected, self.told]
        cancel_then(
            self.clear.click,
            asking.events,
            lambda: conversation.updates(services, []) | {expected: "", self.told: ""},
            emptied,
        )
        self.free.click(lambda: say(actions.free_memory(services)), None, self.told, **QUIET)
        self._follow(context, tab, conversation, options)

    def _follow(self, context: Context, tab: gr.Tab, conversation: Conversation, options: Options) -> None:
        """The examples follow the run, the prompt's length what is typed."""
        services = context.services

        @handler
        def offer(run_id: str, dataset_id: str) -> Updates:
            rows = example_actions.examples(services, run_id, dataset_id)
            return {self.chips: rows, self.rows: rows}

        @handler
        def measure(run_id: str, model: str, prompt: str, system: str, turns: Kept) -> str:
            return say(actions.length_line(services, run_id, model, prompt, system, as_turns(turns)))

        changes: list[Component] = [tab.select, context.run.change, context.dataset.change]
        context.signals.follow(changes, offer, [context.run, context.dataset], [self.chips, self.rows])
        inputs = [context.run, context.model, self.prompt, options.system, conversation.turns]
        context.signals.follow([self.prompt.change, options.system.change], measure, inputs, self.told)
