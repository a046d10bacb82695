"""What the tour changes on the page: it shows the shipped run and its saved answer, and puts back what was there."""

import gradio as gr

from hydralora.runs.run import SHIPPED_ID

from ..actions.chat import saving
from ..page.context import Context
from ..page.handlers import QUIET, Updates, handler
from ..widgets.events import told_by
from ..widgets.tour import tour
from .chat.conversation import Conversation, as_turns
from .shell import choose_run


def build(context: Context, conversation: Conversation, before: gr.BrowserState) -> None:
    """The tour's listeners.

    Args:
        before: where the browser keeps the run and the turns that were there before the tour; {} outside of it.
    """
    services, turns = context.services, conversation.turns
    widget = tour()

    @handler
    def begin(run_id: str, stored: dict[str, object]) -> Updates:
        choice = choose_run(context, SHIPPED_ID) if run_id != SHIPPED_ID else {}
        return choice | {before: stored or {"run": run_id}}

    @handler
    def answer(values: list[dict[str, object]], stored: dict[str, object], event: gr.EventData) -> Updates:
        steered = bool(told_by(event).get("steered"))
        shown = conversation.updates(services, [saving.shipped_turn(services, steered)])
        return shown | {before: stored if "turns" in stored else stored | {"turns": values}}

    @handler
    def leave(stored: dict[str, object]) -> Updates:
        run_id, values = stored.get("run"), stored.get("turns")
        updates: Updates = {before: {}}
        if isinstance(run_id, str) and run_id and run_id != SHIPPED_ID:
            updates |= choose_run(context, run_id)
        if isinstance(values, list):
            updates |= conversation.updates(services, saving.still_kept(services, as_turns(values)))
        return updates

    place = [context.run, context.dataset]
    widget.begin(begin, [context.run, before], [*place, before], **QUIET)
    widget.answer(answer, [turns, before], [turns, conversation.view, before], **QUIET)
    widget.leave(leave, before, [*place, turns, conversation.view, before], **QUIET)
