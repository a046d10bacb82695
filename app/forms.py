"""Recipe fields as widgets: label, help, range and default come from the field itself."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import gradio as gr
from pydantic.fields import FieldInfo

from hydralora.recipe import (
    ComponentSettings,
    DataSettings,
    Recipe,
    Section,
    TrainingSettings,
    TunerSettings,
    choices,
)

SECTIONS: dict[str, type[Section]] = {
    "": Recipe,
    "data": DataSettings,
    "components": ComponentSettings,
    "tuner": TunerSettings,
    "training": TrainingSettings,
}
Widget = gr.Dropdown | gr.Number | gr.Textbox


def widget(key: str, label: str, names: Mapping[str, str] | None = None, **more: Any) -> Widget:
    """The widget for "section.name"; an optional number shows None as 0.

    Args:
        names: what the values of a choice are called, and which of them are offered; all as they are by default.
        more: goes to the widget, such as `info`, help that says less than the setting's own.
    """
    section, _, name = key.rpartition(".")
    field = SECTIONS[section].model_fields[name]
    value = field.default
    shared: dict[str, Any] = {
        "label": label,
        "info": field.description,
        "elem_id": key.replace(".", "-"),
        **more,
    }
    options = choices(SECTIONS[section], name)
    if options:
        offered = [(shown, value) for value, shown in names.items()] if names else list(options)
        return gr.Dropdown(offered, value=value, **shared)
    if field.annotation is str:
        return gr.Textbox(value, max_lines=1, **shared)
    low, high = _range(field)
    precision = 0 if int in (field.annotation, *get_args(field.annotation)) else None
    return gr.Number(
        0 if value is None else value,
        minimum=0 if _is_optional(field) else low,
        maximum=high,
        precision=precision,
        **shared,
    )


def values(keys: Iterable[str], shown: Iterable[Any]) -> dict[str, Any]:
    """What the widgets of `keys` hold, as recipe values: 0 in an optional number is None."""
    out = dict(zip(keys, shown, strict=True))
    for key, value in out.items():
        section, _, name = key.rpartition(".")
        if value == 0 and _is_optional(SECTIONS[section].model_fields[name]):
            out[key] = None
    return out


def shown(value: Any) -> Any:
    """A recipe's value as its widget holds it: None in an optional number is 0."""
    return 0 if value is None else value


def _is_optional(info: FieldInfo) -> bool:
    return type(None) in get_args(info.annotation)


def _range(info: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for limit in info.metadata:
        low = getattr(limit, "ge", getattr(limit, "gt", low))
        high = getattr(limit, "le", getattr(limit, "lt", high))
    return low, high
