"""The columns of a conversation, side by side, each with its tokens."""

import html
from typing import Any

import gradio as gr

from hydralora.data.examples import Message

from ...actions.chat import columns as actions
from ...actions.chat.answers import COLUMNS, ColumnView
from ...actions.run_choices import run_choices
from ...page.buttons import new_choices
from ...page.context import Context
from ...page.handlers import Component, Updates, handler
from ...page.text import say, sentence
from ...widgets.tokens import EMPTY, token_strip
from .steering import SteeringForm

CHOSEN_FIRST = ["run", "base"]


class Column:
    """One column: its heading, the conversation, the tokens."""

    def __init__(self, key: str) -> None:
        with gr.Column(min_width=300, visible=key in CHOSEN_FIRST) as self.place:
            self.title = sentence("", elem_id=f"title-{key}", elem_classes=["column-title"])
            self.chatbot = _chatbot(key)
            self.strip = token_strip(f"strip-{key}")

    @property
    def outputs(self) -> list[Component]:
        return [self.title, self.chatbot, self.strip]

    def updates(self, view: ColumnView | None) -> Updates:
        """Empty if there is no answer."""
        if view is None:
            return {self.title: "", self.chatbot: [], self.strip: EMPTY}
        return {self.title: say(view.title), self.chatbot: displayed(view.messages), self.strip: view.strip}


class Choices:
    """The choice of columns and of the other run, and the steering of the steered column."""

    def __init__(self) -> None:
        with gr.Row():
            self.chosen = gr.CheckboxGroup(
                [(name, key) for key, name in COLUMNS.items()],
                value=CHOSEN_FIRST,
                label="Columns",
                elem_id="chat-columns",
                min_width=320,
            )
            self.other = gr.Dropdown([], value=None, label="The other run", visible=False, elem_id="chat-other-run")
        self.steering = SteeringForm()

    def wire(self, context: Context, tab: gr.Tab, columns: dict[str, Column], answers: gr.State) -> None:
        """Let headings, other runs and heads follow the chosen run."""
        services, run = context.services, context.run

        @handler
        def arrange(
            run_id: str | None, model: str, chosen: list[str], other: str | None, answer_ids: dict[str, str]
        ) -> Updates:
            known = [(label, value) for label, value in run_choices(services) if value != run_id]
            selected = other if other in {value for _, value in known} else None
            titles = actions.titles(services, run_id, model, answer_ids)
            return {
                self.other: new_choices(gr.Dropdown, known, other, selected, visible="other" in chosen),
                self.steering.panel: gr.Accordion(visible="steered" in chosen),
                **{column.place: gr.Column(visible=key in chosen) for key, column in columns.items()},
                **{column.title: say(titles[key]) for key, column in columns.items()},
            }

        @handler
        def name_heads(run_id: str | None, pin: int | None, mute: list[int]) -> Updates:
            return self.steering.heads(actions.heads_of(services, run_id), pin, mute)

        outputs = [self.other, self.steering.panel]
        outputs += [part for column in columns.values() for part in (column.place, column.title)]
        changes = [tab.select, run.change, context.model.change, self.chosen.change, answers.change]
        context.signals.follow(changes, arrange, [run, context.model, self.chosen, self.other, answers], outputs)
        naming = [self.steering.pin, self.steering.mute]
        context.signals.follow([tab.select, run.change], name_heads, [run, *naming], naming)


def _chatbot(key: str) -> gr.Chatbot:
    """Models' and users' text is shown literally: neither Markdown nor HTML."""
    return gr.Chatbot(
        show_label=False,
        height=220,
        buttons=["copy"],
        render_markdown=False,
        sanitize_html=True,
        feedback_options=None,
        elem_id=f"chat-{key}",
        placeholder=" ",
    )


def displayed(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages for the chatbot, which drops what looks like HTML, even without Markdown: escaped, it shows as written.

    Content in parts keeps its leading blanks; the chatbot strips those of a plain string.
    """
    return [
        {"role": message["role"], "content": [{"type": "text", "text": html.escape(message["content"])}]}
        for message in messages
    ]
