"""What a widget of ours tells the server with an event."""

from typing import Any

import gradio as gr


def told_by(event: gr.EventData) -> dict[str, Any]:
    """The values that a widget sent with an event; empty for anything else, which a request may hold."""
    return event._data if isinstance(event._data, dict) else {}
