"""The bar above the tabs, shared by all of them."""

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
        dataset, run: the dropdowns of the bar above the tabs.
        model, max_length: fields of the run form, drawn in the Train tab.
    """

    services: Services
    page: gr.Blocks
    signals: Signals
    dataset: gr.Dropdown
    run: gr.Dropdown
    model: gr.Dropdown
    max_length: Widget
