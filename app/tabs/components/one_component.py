"""One component in detail, in the Components page."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from hydralora.recipe.settings import TrainingSettings

from ...actions.components import one_component as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import Component, Updates, latest
from ...page.text import say, sentence
from ...widgets.plot import plot_panel
from .settings import ComponentForm

LONGEST_ROW = TrainingSettings.model_fields["max_length"].default


class OneComponent:
    """Its name, typical rows, outliers and row lengths.

    Attributes:
        panel: its frame, folded at first.
        number: the number of the component, from 1; `name`: the textbox of its name.
        alone: the button that plans a run on it alone.
    """

    def __init__(self) -> None:
        self.panel = gr.Accordion("One component: rows, outliers, lengths", open=False, elem_id="one-component")
        with self.panel:
            with gr.Row():
                self.number = gr.Dropdown([1], value=1, label="Component", elem_id="component", min_width=260)
                self.name = gr.Textbox(
                    label="Name",
                    info="Enter saves it, for this page and for runs.",
                    max_lines=1,
                    max_length=60,
                    submit_btn="Save",
                    elem_id="component-name",
                    min_width=260,
                )
                self.alone = action_button("Train a LoRA on this component alone", "train-alone", 320)
            self.about = sentence("", elem_id="component-sentence")
            self.rows = gr.Dataframe(
                headers=actions.COLUMNS,
                column_widths=["12%", "9%", "42%", "22%", "15%"],
                wrap=True,
                interactive=False,
                max_height=320,
                elem_id="component-rows",
                label="Typical rows and outliers",
            )
            self.lengths = plot_panel(
                "component-lengths",
                "Rows of the component by their length in tokens",
                empty="Lengths are drawn once the base model is on this machine.",
                awaited=True,
            )
            self.named = gr.State("")  # the component whose name the textbox holds

    def wire(self, context: Context, form: ComponentForm, ends: Sequence[Callable[..., object]]) -> None:
        """Show the chosen component whenever one of these listeners has ended, or another one is chosen."""

        @latest(context.services, "component")
        def look(
            named: str, dataset_id: str, number: int | None, max_length: float | None, model: str, *values: Component
        ) -> Updates:
            request = form.request(model, *values)
            longest = int(max_length or LONGEST_ROW)
            view = actions.component(context.services, dataset_id, request, number or 1, model, longest)
            updates = {self.about: say(view.sentence), self.rows: view.rows, self.lengths: view.lengths}
            component = f"{dataset_id} {request.key} {number}"
            if component == named:  # a name that is typed, but not saved yet, stays
                return updates
            return updates | {self.named: component, self.name: gr.Textbox(value=view.given, placeholder=view.terms)}

        inputs = [self.named, context.dataset, self.number, context.max_length, *form.inputs]
        outputs = [self.named, self.name, self.about, self.rows, self.lengths]
        context.signals.follow([self.number.change, *ends], look, inputs, outputs, trigger_mode="multiple")

    def choices(self, components: list[tuple[str, int]], number: int | None) -> gr.Dropdown:
        """The components to choose from; a choice stays, even one made during the clustering."""
        gone: dict[str, Any] = {} if number and number <= len(components) else {"value": 1}
        return gr.Dropdown(choices=components, **gone)
