"""The conversation, and who answers in it."""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from ...actions.chat import answers as actions
from ...actions.chat.answers import COLUMNS, Turn
from ...actions.chat.columns import heads_of
from ...actions.run_choices import run_choices
from ...page.buttons import new_choices
from ...page.context import Context
from ...page.handlers import Updates, handler
from ...services import Services
from ...widgets import chat

BESIDE = {"base": "Base model", "other": "Another run"}
Kept = list[dict[str, Any]]  # turns as the page's state and the browser keep them
_TURN = TypeAdapter(Turn)


def kept(turns: list[Turn]) -> Kept:
    return [asdict(turn) for turn in turns]


def as_turns(values: Kept | None) -> list[Turn]:
    """Turns from a state or from what the browser keeps; an older version's are left out."""
    turns = []
    for value in values or []:
        with suppress(ValidationError):
            turns.append(_TURN.validate_python(value))
    return turns


class Conversation:
    """The turns, and the choice of columns beside the tuned model.

    Attributes:
        turns: as `kept`, the questions with the ids of their answers.
        steering: the mixer's settings, None as trained.
        heads: the chosen run's `Heads`.
    """

    def __init__(self) -> None:
        self.turns: gr.State = gr.State([])
        self.steering: gr.State = gr.State(None)
        with gr.Row(elem_id="chat-tools"):
            self.chosen = gr.CheckboxGroup(
                [(name, key) for key, name in BESIDE.items()],
                value=["base"],
                show_label=False,
                label="Compare with",
                elem_id="chat-columns",
                container=False,
                min_width=240,
            )
            self.other = gr.Dropdown(
                [], value=None, show_label=False, label="The other run", visible=False, elem_id="chat-other-run"
            )
        self.view = chat.conversation("conversation", COLUMNS)

    def updates(self, services: Services, turns: list[Turn]) -> Updates:
        """Show these turns."""
        shown = {"turns": actions.turn_values(services, turns), "pending": None}
        return {self.turns: kept(turns), self.view: shown}

    def asked(self, services: Services, turns: list[Turn], question: str, expected: str, columns: list[str]) -> Updates:
        """Show a question for which the models of these columns are being loaded."""
        pending = {"question": question, "expected": expected, "columns": columns}
        return {self.view: {"turns": actions.turn_values(services, turns), "pending": pending}}

    def wire(self, context: Context, tab: gr.Tab, mixer: gr.HTML) -> None:
        """Let the mixer and the other runs follow the chosen run."""
        services, run = context.services, context.run

        @handler
        def arrange(run_id: str, chosen: list[str], other: str | None) -> Updates:
            known = [(name, value) for name, value in run_choices(services) if value != run_id]
            selected = other if other in {value for _, value in known} else None
            return {self.other: new_choices(gr.Dropdown, known, other, selected, visible="other" in chosen)}

        @handler
        def mix(run_id: str) -> Updates:
            return {mixer: heads_of(services, run_id), self.steering: None}

        context.signals.follow(
            [tab.select, run.change, self.chosen.change], arrange, [run, self.chosen, self.other], self.other
        )
        context.signals.follow([tab.select, run.change], mix, run, [mixer, self.steering])
