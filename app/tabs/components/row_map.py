"""The map of the rows, in the Components page, linked with the list of components both ways."""

from collections.abc import Callable, Iterator, Sequence

import gradio as gr

from hydralora.figures import ColourBy
from hydralora.projection import METHODS, Method

from ...actions.components import row_map as actions
from ...actions.components.tab import list_value
from ...actions.components.tab import listed as component_lines
from ...actions.reading import ROW_COLUMNS, ROW_WIDTHS
from ...page.buttons import method_choice
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler, latest
from ...page.text import explain, reading_help, say, sentence
from ...services import Services
from ...widgets.events import told_by
from ...widgets.plot import plot_panel, selected_ids
from .one_component import OneComponent
from .settings import ComponentForm

NOTHING = "Draw a line around points of the map, click one, or search, to list their rows here"
KIND = "map"


class RowMap:
    """The map, and the table of selected rows; every change of either is one of `KIND`, of which the newest counts."""

    def __init__(self) -> None:
        with gr.Row(elem_classes=["choices"]):
            self.method = method_choice("map-method", "Projection", tuple(reversed(METHODS)), 200)
            self.colour_by = gr.Radio(
                ["component", "task", "length"],
                value="component",
                label="Colour by",
                elem_id="map-colour",
                min_width=200,
            )
        self.map = plot_panel("map", "Map of the rows", caption="map-help", fills=True, awaited=True)
        self.caption = sentence("", elem_id="map-caption")
        self.help = reading_help("", "map-help")

    def draw_rows(self) -> None:
        with gr.Accordion("Rows selected on the map", open=True, elem_id="selected-rows"):
            self.text = gr.Textbox(
                label="Search the rows",
                placeholder="words of a question or an answer",
                submit_btn="Search",
                max_lines=1,
                elem_id="map-search",
            )
            self.hits = sentence("", elem_id="map-hits")
            self.rows = gr.Dataframe(
                headers=ROW_COLUMNS,
                column_widths=ROW_WIDTHS,
                wrap=True,
                interactive=False,
                max_height=400,
                elem_id="map-rows",
                label=NOTHING,
            )

    def wire(
        self,
        context: Context,
        form: ComponentForm,
        ends: Sequence[Callable[..., object]],
        components: gr.HTML,
        component: OneComponent,
    ) -> None:
        """Draw the map whenever one of these listeners has ended, or a choice has changed.

        Args:
            components: the list of components, which shows how many of each are selected, and selects them.
            component: the chosen one, which opens.
        """
        services, dataset = context.services, context.dataset
        inputs = [dataset, self.method, self.colour_by, *form.inputs]
        drawn = [self.map, self.caption, self.help]
        listed = [self.rows, self.hits, components]

        @latest(services, KIND)
        def draw(dataset_id: str, method: Method, colour_by: ColourBy, *values: Component) -> Iterator[Updates]:
            request = form.request(*values)
            for view in actions.draw(services, dataset_id, request, method, colour_by):
                yield self._updates(view)

        # One event for all: with a listener each, the one that a person caused last is not always called last. Not
        # after the last one has ended: a projection that is replaced may take minutes.
        changes = [self.method.change, self.colour_by.change, *ends]
        context.signals.follow(changes, draw, inputs, drawn, trigger_mode="multiple")

        @latest(services, KIND)
        def search(
            dataset_id: str, text: str, method: Method, colour_by: ColourBy, *values: Component
        ) -> Iterator[Updates]:
            indices, sentence_on_them = actions.search(services, dataset_id, text)
            # Repeated in each update, which sends it once. Left out of one it could be lost: Gradio's page applies the
            # changes of an update to the one before, even if that is not displayed yet.
            request = form.request(*values)
            found = {self.hits: say(sentence_on_them), self.rows: self._table(services, dataset_id, indices)}
            found |= {components: list_value(component_lines(services, dataset_id, request, indices))}
            for view in actions.draw(services, dataset_id, request, method, colour_by, indices):
                yield self._updates(view) | found

        self.text.submit(search, [dataset, self.text, *inputs[1:]], [*drawn, *listed], **QUIET)

        @latest(services, KIND)
        def pick(
            event: gr.EventData, dataset_id: str, method: Method, colour_by: ColourBy, *values: Component
        ) -> Iterator[Updates]:
            request = form.request(*values)
            picked = int(told_by(event).get("number") or 0)
            indices = actions.rows_of(services, dataset_id, request, picked) if picked else []
            chosen = {component.number: picked, component.panel: gr.Accordion(open=True)} if picked else {}
            found = {self.hits: "", self.rows: self._table(services, dataset_id, indices)} | chosen
            found |= {components: list_value(component_lines(services, dataset_id, request), picked)}
            for view in actions.draw(services, dataset_id, request, method, colour_by, indices):
                yield self._updates(view) | found

        components.pick(pick, inputs, [*drawn, *listed, component.number, component.panel], **QUIET)
        self._selecting(context, form, components)

    def _selecting(self, context: Context, form: ComponentForm, components: gr.HTML) -> None:
        services, dataset = context.services, context.dataset

        @handler
        def select(dataset_id: str, event: gr.EventData, *values: Component) -> Updates:
            ids = selected_ids(event)
            lines = component_lines(services, dataset_id, form.request(*values), ids)
            return {
                self.rows: self._table(services, dataset_id, ids),
                self.hits: "",
                components: list_value(lines),
            }

        for selected in (self.map.lasso, self.map.pick):  # gr.on takes no custom events
            outputs = [self.rows, self.hits, components]
            selected(select, [dataset, *form.inputs], outputs, api_visibility="private")
        context.signals.follow(
            [dataset.change],
            lambda: {self.rows: gr.Dataframe(value=[], label=NOTHING), self.hits: ""},
            None,
            [self.rows, self.hits],
        )

    def _updates(self, view: actions.MapView) -> Updates:
        told = {self.caption: say(view.caption), self.help: explain(view.help)}
        return told | ({self.map: view.figure} if view.figure else {})

    def _table(self, services: Services, dataset_id: str, chosen: list[int]) -> gr.Dataframe:
        label = actions.listed(len(chosen)) if chosen else NOTHING
        return gr.Dataframe(value=actions.rows(services, dataset_id, chosen), label=label)
