"""Asking: a new question in all columns, or the last one again with other gates."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...actions.chat import asking as actions
from ...actions.chat.answers import Turn
from ...actions.chat.columns import columns, heads_of
from ...actions.chat.steering import steering_of
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler, latest
from ...services import MODEL_QUEUE
from ...widgets.events import told_by
from .conversation import Conversation, Kept, as_turns
from .options import Options

CHATTERS = 8  # answers at once; those of one model share it, a token at a time


class Asking:
    """The listeners that answer.

    Attributes:
        ask: the arguments of the listener that asks a question: its inputs are the question, the answer that a row
            expects, and `inputs`.
        events: the listeners that are under way while answers grow.
    """

    def __init__(self, context: Context, conversation: Conversation, options: Options, mixer: gr.HTML) -> None:
        self._services, self._conversation, self._options = context.services, conversation, options
        who = [context.run, context.model, conversation.chosen, conversation.other]
        self.inputs: list[Component] = [*who, conversation.turns, conversation.steering, *options.inputs]
        self.outputs: list[Component] = [conversation.turns, conversation.view]
        self._shared: dict[str, Any] = QUIET | {"concurrency_id": MODEL_QUEUE, "concurrency_limit": CHATTERS}
        self.events = [self._wire_mixer(mixer)]

    def listen(self, event: Component, question: Component, expected: Component) -> gr.events.Dependency:
        """Ask `question` at an event; the prompt is emptied once it is in the conversation."""
        inputs = [question, expected, *self.inputs]
        asked = event(
            self._ask(question, expected),
            inputs,
            [*self.outputs, question, expected],
            trigger_mode="multiple",
            **self._shared,
        )
        self.events.append(asked)
        return asked

    def _ask(self, prompt: Component, expects: Component) -> Component:
        services, conversation = self._services, self._conversation

        @latest(services, "chat")
        def stream(
            question: str,
            expected: str,
            run_id: str,
            model: str,
            chosen: list[str],
            other: str | None,
            turns: Kept,
            settings: dict[str, Any] | None,
            system: str,
            *sampling: Component,
        ) -> Iterator[Updates]:
            before = as_turns(turns)
            tuned = ["run"] if run_id and services.run(run_id).has_adapter else []
            waiting = [*tuned, *(key for key in chosen if key == "base" or other)] or ["base"]
            loading = conversation.asked(services, before, question, expected, waiting)
            yield loading | {prompt: "", expects: ""}
            try:
                heads = heads_of(services, run_id)["heads"]
                steering = steering_of(settings, heads) if heads else None
                answering = columns(services, chosen, run_id, model, other if "other" in chosen else None, steering)
                asked = actions.Asked(
                    services, answering, before, Turn(question, expected), self._options.read(*sampling), system
                )
            except Exception:
                yield conversation.updates(services, before) | {prompt: question, expects: expected}
                raise
            yield conversation.updates(services, [*before, asked.turn])
            for _ in asked.run():
                yield gr.skip()

        @handler
        def answer(request: gr.Request, question: str, *inputs: Component) -> Iterator[Updates]:
            actions.check_prompt(question)  # an empty prompt must not end another answer
            yield from stream(request, question, *inputs)

        return answer

    def _wire_mixer(self, mixer: gr.HTML) -> gr.events.Dependency:
        """The last question again beside its answer, with the gates that the mixer sets."""
        services, conversation = self._services, self._conversation

        @latest(services, "steer")
        def again(
            settings: dict[str, Any],
            run_id: str,
            model: str,
            turns: Kept,
            system: str,
            *sampling: Component,
        ) -> Iterator[Updates]:
            steering = steering_of(settings, heads_of(services, run_id)["heads"])
            kept_settings = {conversation.steering: settings if steering else None}
            before = as_turns(turns)
            if not before or "run" not in before[-1].answers:
                yield kept_settings
                return
            *earlier, last = before
            if steering is None:
                yield kept_settings | conversation.updates(services, [*earlier, last.answered("steered", None)])
                return
            steered = [column for column in columns(services, [], run_id, model, steering=steering) if column.steering]
            asked = actions.Asked(services, steered, earlier, last, self._options.read(*sampling), system)
            yield kept_settings | conversation.updates(services, [*earlier, asked.turn])
            for _ in asked.run():
                yield gr.skip()

        @handler
        def steer(
            request: gr.Request,
            event: gr.EventData,
            run_id: str,
            model: str,
            turns: Kept,
            system: str,
            *sampling: Component,
        ) -> Iterator[Updates]:
            yield from again(request, told_by(event), run_id, model, turns, system, *sampling)

        outputs = [*self.outputs, conversation.steering]
        run, model = self.inputs[:2]
        inputs = [run, model, conversation.turns, *self._options.inputs]
        return mixer.steer(steer, inputs, outputs, trigger_mode="multiple", **self._shared)
