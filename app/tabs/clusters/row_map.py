"""The map of the rows, in the Clusters tab."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hydralora.figures import METHOD_NAMES, ColourBy
from hydralora.projection import Method

from ...actions.clusters import row_map as actions
from ...actions.data import COLUMNS, WIDTHS
from ...page.text import QUIET, say, sentence, shown, shown_stream, until_superseded
from ...services import Services
from ...widgets.plot import plot_panel, selected_ids

NOTHING = "Lasso points, click one, or search, to list their rows here"


def build(services: Services, dataset: gr.Dropdown, asked: list[Any], reading: Any) -> dict[str, Any]:
    """Draw the map and the table of selected rows; returns the listener that draws it anew."""
    method, colour_by, wanted = _choices()
    chart = plot_panel("map", "Map of the rows", caption="map-caption")
    caption = sentence("", elem_id="map-caption")
    hits = sentence("", elem_id="map-hits")
    rows = gr.Dataframe(
        headers=COLUMNS,
        column_widths=WIDTHS,
        wrap=True,
        interactive=False,
        max_height=400,
        elem_id="map-rows",
        label=NOTHING,
    )

    @shown_stream
    def draw(request: gr.Request, dataset_id: str, method: Method, colour_by: ColourBy, *held: Any) -> Iterator[tuple]:
        for view in _views(services, request, dataset_id, reading(*held), method, colour_by):
            yield view.figure or gr.skip(), say(view.caption)

    @shown
    def select(dataset_id: str, event: gr.EventData) -> tuple:
        return table(dataset_id, selected_ids(event)), ""

    @shown_stream
    def search(
        request: gr.Request, dataset_id: str, text: str, method: Method, colour_by: ColourBy, *held: Any
    ) -> Iterator[tuple]:
        found, told = actions.search(services, dataset_id, text)
        listed = say(told), table(dataset_id, found)
        for view in _views(services, request, dataset_id, reading(*held), method, colour_by, found):
            # The same each time, and so sent once. Skipped, it could be lost: Gradio's page applies what changes in an
            # update to what came before it, also where that is not shown yet.
            yield view.figure or gr.skip(), say(view.caption), *listed

    def table(dataset_id: str, chosen: list[int]) -> Any:
        label = actions.listed(len(chosen)) if chosen else NOTHING
        return gr.Dataframe(value=actions.rows(services, dataset_id, chosen), label=label)

    listener: dict[str, Any] = {"fn": draw, "inputs": [dataset, method, colour_by, *asked], "outputs": [chart, caption]}
    gr.on([method.change, colour_by.change], **listener, **QUIET, trigger_mode="multiple")
    wanted.submit(search, [dataset, wanted, method, colour_by, *asked], [chart, caption, hits, rows], **QUIET)
    for selected in (chart.lasso, chart.pick):  # gr.on takes no custom events
        selected(select, dataset, [rows, hits], api_visibility="private")
    dataset.change(lambda: (gr.Dataframe(value=[], label=NOTHING), ""), None, [rows, hits], **QUIET)
    return listener


def _views(services: Services, request: gr.Request, *drawn: Any) -> Iterator[actions.MapView]:
    """The map's views, until this session asks for another."""
    is_newest = services.newest(request.session_hash or "", "map")
    yield from until_superseded(is_newest, actions.draw(services, *drawn))


def _choices() -> tuple[gr.Radio, gr.Radio, gr.Textbox]:
    """How the map is drawn, by what it is coloured, and what is searched for."""
    with gr.Row():
        method = gr.Radio(
            [(METHOD_NAMES[method], method) for method in ("umap", "tsne", "pca")],
            value="umap",
            label="Map drawn by",
            elem_id="map-method",
            min_width=260,
        )
        colour_by = gr.Radio(
            [("component", "component"), ("task", "task"), ("length", "length")],
            value="component",
            label="Colour by",
            elem_id="map-colour",
            min_width=280,
        )
        wanted = gr.Textbox(
            label="Search the rows",
            placeholder="a word or more of a question or an answer",
            submit_btn="Search",
            max_lines=1,
            elem_id="map-search",
            min_width=260,
        )
    return method, colour_by, wanted
