"""Recipe fields as widgets: label, help, range and default come from the field itself."""

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from hydralora.recipe import ComponentSettings, DataSettings, Recipe, Section, TrainingSettings, TunerSettings

SECTIONS: dict[str, type[Section]] = {
    "": Recipe,
    "data": DataSettings,
    "components": ComponentSettings,
    "tuner": TunerSettings,
    "training": TrainingSettings,
}


def widget(key: str, label: str, render: bool = True) -> gr.Dropdown | gr.Number:
    """The widget for "section.name"; an optional number shows None as 0."""
    section, _, name = key.rpartition(".")
    info = SECTIONS[section].model_fields[name]
    value = info.default
    elem_id = key.replace(".", "-")
    options = _options(info)
    if options:
        return gr.Dropdown(
            list(options), value=value, label=label, info=info.description, elem_id=elem_id, render=render
        )
    low, high = _range(info)
    precision = 0 if int in (info.annotation, *get_args(info.annotation)) else None
    return gr.Number(
        0 if value is None else value,
        label=label,
        info=info.description,
        minimum=0 if _is_optional(info) else low,
        maximum=high,
        precision=precision,
        elem_id=elem_id,
        render=render,
    )


def values(keys: Iterable[str], shown: Iterable[Any]) -> dict[str, Any]:
    """What the widgets of `keys` hold, as recipe values: 0 in an optional number is None."""
    out = dict(zip(keys, shown, strict=True))
    for key, value in out.items():
        section, _, name = key.rpartition(".")
        if value == 0 and _is_optional(SECTIONS[section].model_fields[name]):
            out[key] = None
    return out


def _is_optional(info: FieldInfo) -> bool:
    return type(None) in get_args(info.annotation)


def _options(info: FieldInfo) -> tuple[Any, ...]:
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else ()


def _range(info: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for limit in info.metadata:
        low = getattr(limit, "ge", getattr(limit, "gt", low))
        high = getattr(limit, "le", getattr(limit, "lt", high))
    return low, high
