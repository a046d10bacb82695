"""Small widgets that several tabs have."""

from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from hydralora.projection import METHODS, Method


def upload_button(label: str, elem_id: str, suffixes: Iterable[str], width: int, **more: Any) -> gr.UploadButton:
    """A small button that takes a file; its handler gets the file's path."""
    shared: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": width} | more
    return gr.UploadButton(label, file_types=list(suffixes), type="filepath", elem_id=elem_id, **shared)


def action_button(label: str, elem_id: str, width: int, **more: Any) -> gr.Button:
    """A button as wide as its words."""
    return gr.Button(label, elem_id=elem_id, scale=0, min_width=width, **({"size": "md"} | more))


def download_button(label: str, elem_id: str, width: int, **more: Any) -> gr.DownloadButton:
    """A button that hands out a file."""
    return gr.DownloadButton(label, elem_id=elem_id, scale=0, min_width=width, **({"size": "md"} | more))


def method_choice(
    elem_id: str, label: str = "Projection", methods: Sequence[Method] = tuple(METHODS), width: int = 220
) -> gr.Radio:
    """The choice of a projection method; the first one is chosen."""
    names = [(METHODS[method].name, method) for method in methods]
    return gr.Radio(names, value=methods[0], label=label, elem_id=elem_id, min_width=width)
