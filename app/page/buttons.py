"""Small widgets shared by several tabs."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import gradio as gr

from hydralora.projection import METHODS, Method

Chooser = TypeVar("Chooser", gr.Dropdown, gr.CheckboxGroup)


def upload_button(label: str, elem_id: str, suffixes: Iterable[str], width: int, **more: Any) -> gr.UploadButton:
    """A small upload button; its handler gets the file's path."""
    shared: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": width} | more
    return gr.UploadButton(label, file_types=list(suffixes), type="filepath", elem_id=elem_id, **shared)


def action_button(label: str, elem_id: str, width: int, **more: Any) -> gr.Button:
    """A button as wide as its label."""
    return gr.Button(label, elem_id=elem_id, scale=0, min_width=width, **({"size": "md"} | more))


def download_button(label: str, elem_id: str, width: int, **more: Any) -> gr.DownloadButton:
    """A download button as wide as its label."""
    return gr.DownloadButton(label, elem_id=elem_id, scale=0, min_width=width, **({"size": "md"} | more))


def new_choices(kind: type[Chooser], choices: Sequence[Any], current: object, wanted: object, **more: Any) -> Chooser:
    """New choices for a widget. The wanted value is sent only if it isn't the current one: an answer that comes late
    would undo what was chosen meanwhile."""
    value: dict[str, Any] = {} if wanted == current else {"value": wanted}
    return kind(choices=choices, **value, **more)


def method_choice(
    elem_id: str, label: str = "Projection", methods: Sequence[Method] = tuple(METHODS), width: int = 220
) -> gr.Radio:
    """A choice of projection methods; the first is selected."""
    names = [(METHODS[method].name, method) for method in methods]
    return gr.Radio(names, value=methods[0], label=label, elem_id=elem_id, min_width=width)
