"""Runs side by side: curves, results beside each one's base model, settings that differ."""

from collections.abc import Callable

import gradio as gr

from ...actions.runs import comparing as actions
from ...page.text import LATEST, say, sentence, shown
from ...services import Services
from ...widgets.plot import plot_panel


def build(services: Services) -> tuple[gr.Dropdown, Callable[[gr.Tab], None]]:
    """The choice of runs, and a function that wires it to its tab."""
    with gr.Accordion("Compare runs", open=True, elem_id="comparing"):
        chosen = gr.Dropdown([], value=[], multiselect=True, label="Runs to compare", elem_id="compared")
        told = sentence("", elem_id="compare-sentence")
        figure = plot_panel("compare-loss", "Loss of several runs", empty="Choose two runs or more.")
        results = gr.Dataframe(
            wrap=True, interactive=False, visible=False, elem_id="compare-results", label="Held-out rows, side by side"
        )
        differences = gr.Dataframe(
            wrap=True, interactive=False, visible=False, elem_id="compare-settings", label="Settings that differ"
        )

    @shown
    def compare(run_ids: list[str]) -> tuple:
        seen = actions.comparison(services, run_ids or [])
        of_each = [header for name in seen.names for header in (f"{name}: base model", name)]
        results_of = {"headers": ["rows of", *of_each], "data": seen.rows}
        differing = {"headers": ["setting", *seen.names], "data": seen.differences}
        return (
            say(seen.sentence),
            seen.figure,
            gr.Dataframe(value=results_of, visible=bool(seen.rows)),
            gr.Dataframe(value=differing, visible=bool(seen.differences)),
        )

    def wire(tab: gr.Tab) -> None:
        gr.on([tab.select, chosen.change], compare, chosen, [told, figure, results, differences], **LATEST)

    return chosen, wire
