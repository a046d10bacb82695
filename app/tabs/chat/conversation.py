"""A conversation in several columns: its state and its display."""

import gradio as gr

from hydralora.data.examples import Message

from ...actions.chat.answers import COLUMNS, ChatView
from ...page.handlers import Component, Updates
from ...page.text import say, sentence
from .columns import Choices, Column, displayed
from .gates import HOW_TO_READ, Gates


class Conversation:
    """The messages of a conversation, and the widgets that show them.

    Attributes:
        answers: ids of the newest answers, by column.
        histories: the messages by column, unescaped; the chatbots only display them.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.answers, self.histories = gr.State({}), gr.State({})
        with gr.Row():
            self.columns = {key: Column(key) for key in COLUMNS}
        self.gates = Gates()
        self.status = sentence("", elem_id="chat-status")
        sentence(HOW_TO_READ)

    @property
    def outputs(self) -> list[Component]:
        """What `updates` fills."""
        columns = [part for column in self.columns.values() for part in column.outputs]
        return [self.answers, self.histories, *columns, *self.gates.figures, self.status]

    def updates(self, view: ChatView) -> Updates:
        """Show a view; columns that are not in it are emptied."""
        updates: Updates = {
            self.answers: {key: column.answer_id for key, column in view.columns.items()},
            self.histories: {key: column.messages for key, column in view.columns.items()},
            self.status: say(view.status),
        }
        for key, column in self.columns.items():
            updates |= column.updates(view.columns.get(key))
        return updates | self.gates.drawn(view.gates)

    def emptied(self) -> Updates:
        updates: Updates = {self.answers: {}, self.histories: {}, self.status: ""}
        for column in self.columns.values():
            updates |= column.updates(None)
        return updates | dict.fromkeys(self.gates.figures, "") | self.gates.unselected()

    def without_last(self, histories: dict[str, list[Message]]) -> tuple[str, Updates]:
        """The last question, and the conversations without it and its answers."""
        questions = [messages[-2]["content"] for messages in histories.values() if len(messages) > 1]
        remaining = {key: messages[:-2] for key, messages in histories.items()}
        chatbots = {column.chatbot: displayed(remaining.get(key, [])) for key, column in self.columns.items()}
        return questions[0] if questions else "", {self.histories: remaining} | chatbots
