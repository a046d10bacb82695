"""Chat: the tuned model beside its base, itself steered, or another run, with the gates of every token."""

import gradio as gr

from ...page.context import Context
from ...widgets.chat import heatmap, mixer
from .asking import Asking
from .conversation import Conversation
from .heads_alone import HeadsAlone
from .options import Options
from .question import Question
from .saving import Saving


def build(context: Context, tab: gr.Tab, store: gr.BrowserState) -> Conversation:
    """The page, part by part; `store` is where the browser keeps its conversation, which is returned."""
    with gr.Row(elem_id="chat-page"):
        with gr.Column(scale=2, elem_id="chat-main"):
            conversation = Conversation()
            question = Question()
        with gr.Column(scale=1, elem_id="chat-side"):
            heads = mixer("mixer")
            heatmap("heatmap")
    options = Options()
    saving = Saving(context.services)
    heads_alone = HeadsAlone()

    asking = Asking(context, conversation, options, heads)
    conversation.wire(context, tab, heads)
    question.wire(context, tab, conversation, options, asking)
    saving.wire(context, conversation, tab, store, asking.events)
    heads_alone.wire(context, options.system)
    return conversation
