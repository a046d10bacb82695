"""Settings of the gates: pin a head, mute some, all alike, sharper or softer, in some layers."""

import gradio as gr

from hydralora.tuner.steering import Steering, block_range, steering_or_none

from ...page.handlers import Component, Updates


class SteeringForm:
    """How the gates of the steered column are set."""

    def __init__(self) -> None:
        with gr.Accordion("Steer the gates", open=True, visible=False, elem_id="steering") as self.panel:
            with gr.Row():
                self.pin = gr.Dropdown(
                    [("none", -1)], value=-1, label="Pin a head", info="It gets the whole weight.", elem_id="steer-pin"
                )
                self.mute = gr.CheckboxGroup(
                    [], value=[], label="Mute heads", info="The others share.", elem_id="steer-mute"
                )
                self.uniform = gr.Checkbox(False, label="All heads alike", elem_id="steer-uniform")
            with gr.Row():
                self.top = gr.Checkbox(False, label="Strongest head alone (top 1)", elem_id="steer-top")
                self.temperature = gr.Slider(
                    0.1, 5, value=1, step=0.1, label="Temperature of the router (1: unchanged)", elem_id="steer-heat"
                )
                self.layers = gr.Textbox(
                    "", label="Layers to steer", placeholder="all; or 0-11", max_lines=1, elem_id="steer-layers"
                )

    @property
    def fields(self) -> list[Component]:
        """What `read` takes."""
        return [self.pin, self.mute, self.uniform, self.top, self.temperature, self.layers]

    def heads(self, count: int, pin: int | None, mute: list[int]) -> Updates:
        """The heads of an adapter that has so many; what is set stays where it has it."""
        heads = [(f"head {head + 1}", head) for head in range(count)]
        pinned = pin if pin is not None and pin < count else -1
        muted = [head for head in mute if head < count]
        return {
            self.pin: gr.Dropdown(choices=[("none", -1), *heads], value=pinned),
            self.mute: gr.CheckboxGroup(choices=heads, value=muted),
        }

    @staticmethod
    def read(
        pin: int | None, mute: list[int], uniform: bool, top: bool, temperature: float, layers: str
    ) -> Steering | None:
        """What the settings ask; None where they ask nothing.

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
