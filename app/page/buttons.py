"""Buttons that several tabs have."""

from collections.abc import Iterable
from typing import Any

import gradio as gr


def upload_button(label: str, elem_id: str, suffixes: Iterable[str], width: int, **more: Any) -> gr.UploadButton:
    """A small button that takes a file; its handler gets the file's path."""
    shared: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": width} | more
    return gr.UploadButton(label, file_types=list(suffixes), type="filepath", elem_id=elem_id, **shared)
