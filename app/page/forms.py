"""Recipe fields as widgets: label, help, range and default come from the field itself."""

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from hydralora.recipe.launch_settings import LaunchSettings
from hydralora.recipe.section import Section, choices
from hydralora.recipe.settings import ComponentSettings, DataSettings, Recipe, TrainingSettings
from hydralora.recipe.tuner_settings import TunerSettings

SECTIONS: dict[str, type[Section]] = {
    "": Recipe,
    "data": DataSettings,
    "components": ComponentSettings,
    "tuner": TunerSettings,
    "training": TrainingSettings,
    "launch": LaunchSettings,
}
UNSET = "Default"  # the option of an optional setting that has no value
YES_NO = {"yes": True, "no": False}
Kind = Literal["choice", "switch", "number", "text", "list"]
Widget = gr.Dropdown | gr.Number | gr.Textbox | gr.Checkbox


def keys_of(section: str) -> list[str]:
    """The "section.name" of every setting of a section that a widget can hold."""
    prefix = f"{section}." if section else ""
    return [prefix + name for name in SECTIONS[section].model_fields if _kind(prefix + name)]


def widget(key: str, label: str | None = None, names: Mapping[str, str] | None = None, **more: Any) -> Widget:
    """The widget for "section.name"; an optional number shows None as 0.

    Args:
        label: None takes the setting's name.
        names: labels of a choice's values, which also limit the values on offer. Default: all values, unlabelled.
        more: passed to the widget, such as a shorter `info`.
    """
    field, kind = _field(key), _kind(key)
    value = shown(key, field.default)
    shared: dict[str, Any] = {
        "label": label or key.rpartition(".")[2].replace("_", " ").capitalize(),
        "info": field.description,
        "elem_id": key.replace(".", "-"),
        **more,
    }
    if kind == "choice":
        offered = [(name, value) for value, name in names.items()] if names else _options(key)
        return gr.Dropdown(offered, value=value, **shared)
    if kind == "switch":
        return gr.Checkbox(value, **shared)
    if kind in ("text", "list"):
        return gr.Textbox(value, max_lines=1, **shared)
    return gr.Number(value, precision=0 if int in _types(field) else None, **shared)  # the recipe knows its range


def values(keys: Iterable[str], contents: Iterable[Any]) -> dict[str, Any]:
    """The contents of the widgets of `keys`, as recipe values."""
    return {key: _read(key, value) for key, value in zip(keys, contents, strict=True)}


def shown(key: str, value: Any) -> Any:
    """A recipe's value as the widget of `key` holds it."""
    kind = _kind(key)
    if kind == "choice":
        named = {true: name for name, true in YES_NO.items()}
        return UNSET if value is None else named.get(value, value)
    if kind == "list":
        return ", ".join(map(str, value or ()))
    return 0 if value is None and kind == "number" else value


def _read(key: str, value: Any) -> Any:
    field, kind = _field(key), _kind(key)
    if kind == "choice":
        return None if value == UNSET else YES_NO.get(value, value) if bool in _types(field) else value
    if kind == "list":
        return [part.strip() for part in (value or "").split(",") if part.strip()] or None
    empty = {"number": 0, "text": ""}
    return None if kind in empty and value == empty[kind] and _is_optional(field) else value


def _options(key: str) -> list[str]:
    section, _, name = key.rpartition(".")
    if bool in _types(_field(key)):
        return [UNSET, *YES_NO]
    return [UNSET if value is None else value for value in choices(SECTIONS[section], name)]


def _kind(key: str) -> Kind | None:
    """The kind of widget for a setting; None if no widget can hold it."""
    section, _, name = key.rpartition(".")
    types = _types(_field(key))
    if choices(SECTIONS[section], name):
        return "choice"
    if types == {bool}:
        return "choice" if _is_optional(_field(key)) else "switch"
    if types in ({int}, {float}):
        return "number"
    if types == {str}:
        return "text"
    lists = [kind for kind in types if get_origin(kind) is list]
    return "list" if len(lists) == len(types) == 1 else None


def _field(key: str) -> FieldInfo:
    section, _, name = key.rpartition(".")
    return SECTIONS[section].model_fields[name]


def _types(info: FieldInfo) -> set[Any]:
    """The types of a setting's value, apart from None."""
    annotation = info.annotation
    union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    plain = (get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds)
    return {kind for kind in plain if kind is not type(None)}


def _is_optional(info: FieldInfo) -> bool:
    return type(None) in get_args(info.annotation)
