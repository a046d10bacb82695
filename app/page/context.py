"""What all pages share: the services, the chosen run and dataset, and the fields of the form that others read."""

from dataclasses import dataclass

import gradio as gr

from ..services import Services
from .forms import Widget
from .signals import Signals


@dataclass(frozen=True)
class Context:
    """The services, the page, and the choices that several tabs read.

    Attributes:
        signals: for listeners that follow changes.
        dataset, run: hidden fields with the ids of the chosen ones; "" for no run. Filling one chooses it.
        model, max_length: fields of the run form, drawn in the Train tab.
    """

    services: Services
    page: gr.Blocks
    signals: Signals
    dataset: gr.Textbox
    run: gr.Textbox
    model: gr.Dropdown
    max_length: Widget
