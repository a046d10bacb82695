"""The map of the rows, in the Components page."""

from collections.abc import Callable, Iterator, Sequence

import gradio as gr

from hydralora.figures import ColourBy
from hydralora.projection import METHODS, Method

from ...actions.components import row_map as actions
from ...actions.reading import ROW_COLUMNS, ROW_WIDTHS
from ...page.buttons import method_choice
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler, latest
from ...page.text import say, sentence
from ...widgets.plot import plot_panel, selected_ids
from .settings import ComponentForm

NOTHING = "Lasso points, click one, or search, to list their rows here"
KIND = "map"


class RowMap:
    """The map, and the table of selected rows; `draw_after` makes it follow the components."""

    def __init__(self, context: Context, form: ComponentForm) -> None:
        self._context, self._form = context, form
        self._choices()
        self.map = plot_panel("map", "Map of the rows", caption="map-caption")
        self.caption = sentence("", elem_id="map-caption")
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
        self._searching()
        self._selecting()

    def _choices(self) -> None:
        """The choices of projection, colour and search text."""
        with gr.Row():
            self.method = method_choice("map-method", "Projection", tuple(reversed(METHODS)), 260)
            self.colour_by = gr.Radio(
                ["component", "task", "length"],
                value="component",
                label="Colour by",
                elem_id="map-colour",
                min_width=280,
            )
            self.text = gr.Textbox(
                label="Search the rows",
                placeholder="words of a question or an answer",
                submit_btn="Search",
                max_lines=1,
                elem_id="map-search",
                min_width=260,
            )

    def draw_after(self, ends: Sequence[Callable[..., object]]) -> None:
        """Draw the map whenever one of these listeners has ended, such as `found.success`, or a choice has changed.

        They share one event. With a listener each, the one that a person caused last is not always called last.
        """
        services, form = self._context.services, self._form

        @latest(services, KIND)
        def draw(dataset_id: str, method: Method, colour_by: ColourBy, *values: Component) -> Iterator[Updates]:
            for view in actions.draw(services, dataset_id, form.request(*values), method, colour_by):
                yield self._updates(view)

        changes = [self.method.change, self.colour_by.change, *ends]
        inputs = [self._context.dataset, self.method, self.colour_by, *form.inputs]
        # Not after the last one has ended: a projection that is replaced may take minutes.
        self._context.signals.follow(changes, draw, inputs, [self.map, self.caption], trigger_mode="multiple")

    def _searching(self) -> None:
        services, form = self._context.services, self._form

        @latest(services, KIND)
        def search(
            dataset_id: str, text: str, method: Method, colour_by: ColourBy, *values: Component
        ) -> Iterator[Updates]:
            indices, sentence_on_them = actions.search(services, dataset_id, text)
            # Repeated in each update, which sends it once. Left out of one it could be lost: Gradio's page applies the
            # changes of an update to the one before, even if that is not displayed yet.
            listed = {self.hits: say(sentence_on_them), self.rows: self._table(dataset_id, indices)}
            for view in actions.draw(services, dataset_id, form.request(*values), method, colour_by, indices):
                yield self._updates(view) | listed

        inputs = [self._context.dataset, self.text, self.method, self.colour_by, *form.inputs]
        self.text.submit(search, inputs, [self.map, self.caption, self.hits, self.rows], **QUIET)

    def _selecting(self) -> None:
        dataset = self._context.dataset

        @handler
        def select(dataset_id: str, event: gr.EventData) -> Updates:
            return {self.rows: self._table(dataset_id, selected_ids(event)), self.hits: ""}

        for selected in (self.map.lasso, self.map.pick):  # gr.on takes no custom events
            selected(select, dataset, [self.rows, self.hits], api_visibility="private")
        self._context.signals.follow(
            [dataset.change],
            lambda: {self.rows: gr.Dataframe(value=[], label=NOTHING), self.hits: ""},
            None,
            [self.rows, self.hits],
        )

    def _updates(self, view: actions.MapView) -> Updates:
        return {self.caption: say(view.caption)} | ({self.map: view.figure} if view.figure else {})

    def _table(self, dataset_id: str, chosen: list[int]) -> gr.Dataframe:
        label = actions.listed(len(chosen)) if chosen else NOTHING
        return gr.Dataframe(value=actions.rows(self._context.services, dataset_id, chosen), label=label)
