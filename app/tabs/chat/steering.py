"""Steering of the gates: pin a head, mute heads, equal gates, temperature; in all layers or some."""

import gradio as gr

from hydralora.tuner.steering import Steering, block_range, steering_or_none

from ...page.buttons import new_choices
from ...page.handlers import Component, Updates


class SteeringForm:
    """The steering of the steered column."""

    def __init__(self) -> None:
        with gr.Accordion("Steer the gates", open=True, visible=False, elem_id="steering") as self.panel:
            with gr.Row():
                self.pin = gr.Dropdown(
                    [("none", -1)], value=-1, label="Pin a head", info="It gets the whole weight.", elem_id="steer-pin"
                )
                self.mute = gr.CheckboxGroup(
                    [], value=[], label="Mute heads", info="The others share.", elem_id="steer-mute"
                )
                self.uniform = gr.Checkbox(False, label="All heads equal", elem_id="steer-uniform")
            with gr.Row():
                self.top = gr.Checkbox(False, label="Strongest head only (top 1)", elem_id="steer-top")
                self.temperature = gr.Slider(
                    0.1, 5, value=1, step=0.1, label="Temperature of the router (1: unchanged)", elem_id="steer-heat"
                )
                self.layers = gr.Textbox(
                    "",
                    label="Layers to steer",
                    placeholder="all, or a range such as 0-11",
                    max_lines=1,
                    elem_id="steer-layers",
                )

    @property
    def fields(self) -> list[Component]:
        """What `read` takes."""
        return [self.pin, self.mute, self.uniform, self.top, self.temperature, self.layers]

    def heads(self, count: int, pin: int | None, mute: list[int]) -> Updates:
        """The choices for an adapter with `count` heads; settings that it lacks are dropped."""
        heads = [(f"head {head + 1}", head) for head in range(count)]
        pinned = pin if pin is not None and pin < count else -1
        muted = [head for head in mute if head < count]
        return {
            self.pin: new_choices(gr.Dropdown, [("none", -1), *heads], pin, pinned),
            self.mute: new_choices(gr.CheckboxGroup, heads, mute, muted),
        }

    @staticmethod
    def read(
        pin: int | None, mute: list[int], uniform: bool, top: bool, temperature: float, layers: str
    ) -> Steering | None:
        """The steering; None if nothing is set.

        Raises:
            ConfigError: they exclude each other, or the layers are no layers.
        """
        return steering_or_none(
            pin=None if pin is None or pin < 0 else pin,
            mute=tuple(mute),
            uniform=uniform,
            top_k=1 if top else None,
            temperature=None if temperature == 1 else temperature,
            layers=block_range(layers) if layers.strip() else None,
        )
