"""Chat: the tuned model beside its base, itself steered, or another run, with the gates of every token."""

import gradio as gr

from ...page.context import Context
from .columns import Choices
from .conversation import Conversation
from .heads_alone import HeadsAlone
from .question import HeldOutRows, Options, Question
from .saving import Saving


def build(context: Context, tab: gr.Tab, store: gr.BrowserState) -> None:
    """The tab, part by part; `store` is where the browser keeps the ids of its answers."""
    rows = HeldOutRows()
    choices = Choices()
    question = Question()
    conversation = Conversation(choices)
    options = Options()
    saving = Saving(context.services)
    heads_alone = HeadsAlone()

    saving.wire(context, conversation, tab, store)
    rows.wire(context, tab)
    choices.wire(context, tab, conversation.columns, conversation.answers)
    question.wire(context, conversation, options, saving, rows)
    for event in conversation.gates.wire(context.services, conversation.answers, conversation.columns):
        saving.offer_after(event, conversation.answers)
    heads_alone.wire(context, options.system)
