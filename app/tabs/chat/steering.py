"""Settings of the gates, in the Chat tab: pin a head, mute some, all alike, sharper or softer, in some layers."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from hydralora.tuner.steering import Steering, block_range, steering_or_none


@dataclass(frozen=True)
class SteeringForm:
    """The settings, and those of them that name heads."""

    fields: list[Any]
    pin: gr.Dropdown
    mute: gr.CheckboxGroup


def build() -> SteeringForm:
    with gr.Row():
        pin = gr.Dropdown(
            [("none", -1)], value=-1, label="Pin a head", info="It gets the whole weight.", elem_id="steer-pin"
        )
        mute = gr.CheckboxGroup([], value=[], label="Mute heads", info="The others share.", elem_id="steer-mute")
        uniform = gr.Checkbox(False, label="All heads alike", elem_id="steer-uniform")
    with gr.Row():
        top = gr.Checkbox(False, label="Strongest head alone (top 1)", elem_id="steer-top")
        heat = gr.Slider(
            0.1, 5, value=1, step=0.1, label="Temperature of the router (1: as it is)", elem_id="steer-heat"
        )
        layers = gr.Textbox(
            "", label="Layers to steer", placeholder="all; or 0-11", max_lines=1, elem_id="steer-layers"
        )
    return SteeringForm([pin, mute, uniform, top, heat, layers], pin, mute)


def heads_named(count: int, pin: int | None, mute: list[int]) -> tuple[Any, Any]:
    """Updates of the settings that name heads, for an adapter of `count` heads; what is set stays where it has it."""
    heads = [(f"head {head + 1}", head) for head in range(count)]
    pinned = pin if pin is not None and pin < count else -1
    muted = [head for head in mute if head < count]
    return gr.Dropdown(choices=[("none", -1), *heads], value=pinned), gr.CheckboxGroup(choices=heads, value=muted)


def read(pin: int | None, mute: list[int], uniform: bool, top: bool, heat: float, layers: str) -> Steering | None:
    """What the settings ask; None where they ask nothing.

    Raises:
        ConfigError: they exclude each other, or the layers are no layers.
    """
    return steering_or_none(
        pin=None if pin is None or pin < 0 else pin,
        mute=tuple(mute),
        uniform=uniform,
        top_k=1 if top else None,
        temperature=None if heat == 1 else heat,
        layers=block_range(layers) if layers.strip() else None,
    )
