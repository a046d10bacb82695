"""Sampling and the system prompt."""

import gradio as gr

from hydralora.inference.generation import Sampling

from ...page.handlers import Component


class Options:
    """How answers are sampled, and what is said to the model before every conversation."""

    def __init__(self) -> None:
        with gr.Accordion("Sampling, system prompt", open=False, elem_id="chat-options"):
            with gr.Row():
                self.sampling: list[Component] = [
                    gr.Slider(1, 2048, value=128, step=1, label="Longest answer, tokens", elem_id="length"),
                    gr.Slider(0, 2, value=0, step=0.1, label="Temperature (0: always the likeliest token)"),
                    gr.Slider(0.05, 1, value=1, step=0.05, label="Top p"),
                    gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="chat-seed"),
                ]
            self.system = gr.Textbox("", label="System prompt", lines=1, max_lines=6, elem_id="system")

    @property
    def inputs(self) -> list[Component]:
        """What `read` takes, and the system prompt before it."""
        return [self.system, *self.sampling]

    @staticmethod
    def read(longest: float, temperature: float, top_p: float, seed: float | None) -> Sampling:
        return Sampling(int(longest or 1), temperature or 0.0, top_p, int(seed or 0))
