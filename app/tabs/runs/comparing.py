"""Runs side by side: curves, results beside the base models', settings that differ."""

import gradio as gr

from ...actions.run_choices import Choice
from ...actions.runs import comparing as actions
from ...page.buttons import new_choices
from ...page.context import Context
from ...page.handlers import Updates, handler
from ...page.text import say, sentence
from ...services import Services
from ...widgets.plot import plot_panel


class Comparing:
    """The choice of runs, and their comparison."""

    def __init__(self) -> None:
        with gr.Accordion("Compare runs", open=True, elem_id="comparing"):
            self.chosen = gr.Dropdown([], value=[], multiselect=True, label="Runs to compare", elem_id="compared")
            self.sentence = sentence("", elem_id="compare-sentence")
            self.figure = plot_panel("compare-loss", "Loss of several runs", empty="Choose two runs or more.")
            self.results = _table("compare-results", "Held-out rows, side by side")
            self.differences = _table("compare-settings", "Settings that differ")

    def wire(self, context: Context, tab: gr.Tab) -> None:
        services = context.services

        @handler
        def compare(run_ids: list[str] | None) -> Updates:
            view = actions.comparison(services, run_ids or [])
            of_each = [header for name in view.names for header in (f"{name}: base model", name)]
            results = {"headers": ["rows of", *of_each], "data": view.rows}
            differences = {"headers": ["setting", *view.names], "data": view.differences}
            return {
                self.sentence: say(view.sentence),
                self.figure: view.figure,
                self.results: gr.Dataframe(value=results, visible=bool(view.rows)),
                self.differences: gr.Dataframe(value=differences, visible=bool(view.differences)),
            }

        outputs = [self.sentence, self.figure, self.results, self.differences]
        context.signals.follow([tab.select, self.chosen.change], compare, self.chosen, outputs)

    def choices(self, services: Services, runs: list[Choice], chosen: list[str]) -> gr.Dropdown:
        """The runs to compare; runs that are gone are deselected."""
        offered = actions.choices(services, runs)
        known = [run_id for run_id in chosen if run_id in {value for _, value in offered}]
        return new_choices(gr.Dropdown, offered, chosen, known)


def _table(elem_id: str, label: str) -> gr.Dataframe:
    return gr.Dataframe(wrap=True, interactive=False, visible=False, elem_id=elem_id, label=label)
