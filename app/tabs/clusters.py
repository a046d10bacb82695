"""Clusters: the components of the dataset, and the number of heads that they suggest."""

from dataclasses import dataclass

import gradio as gr

from app.actions import clusters as actions
from app.actions.data import COLUMNS as ROW_COLUMNS
from app.actions.data import WIDTHS as ROW_WIDTHS
from app.components.plot import plot_panel, selected_ids
from app.services import Services
from app.tabs.messages import say, sentence, shown
from hydralora.projection import Method


@dataclass(frozen=True)
class ClustersTab:
    use: gr.Button
    k: gr.State


def build(services: Services, dataset: gr.Dropdown, tab: gr.Tab) -> ClustersTab:
    found = gr.State(None)
    answer = sentence("", elem_id="clusters-sentence")
    with gr.Row():
        wanted = gr.Number(
            0,
            label="Components",
            info="0 takes the elbow of the curve.",
            minimum=0,
            maximum=64,
            precision=0,
            elem_id="k",
        )
        features = gr.Radio(
            [("TF-IDF, reduced (default)", "tfidf-svd"), ("plain TF-IDF (the paper's)", "tfidf")],
            value="tfidf-svd",
            label="Text features",
        )
        use = gr.Button("Use these heads", variant="primary", elem_id="use-heads", min_width=160)
    with gr.Row():
        curve = plot_panel("elbow", "Sum of squared distances over the number of components")
        bars = plot_panel("sizes", "Rows in each component")
    sentence(
        "The curve falls steeply while each new component explains something, then bends: that is the elbow. The "
        "components set how many heads there are and may start the router; no row is ever assigned to a head."
    )
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        column_widths=["7%", "11%", "12%", "31%", "39%"],
        wrap=True,
        interactive=False,
        elem_id="components",
        label="Components",
    )
    with gr.Row():
        method = gr.Radio(
            [("PCA", "pca"), ("t-SNE", "tsne"), ("UMAP", "umap")],
            value="pca",
            label="Map drawn by",
            elem_id="map-method",
        )
    chart = plot_panel("map", "Map of the rows")
    caption = sentence("", elem_id="map-caption")
    rows = gr.Dataframe(
        headers=ROW_COLUMNS,
        column_widths=ROW_WIDTHS,
        wrap=True,
        interactive=False,
        elem_id="map-rows",
        label="Lasso points, or click one, to list their rows here",
    )

    @shown
    def show(dataset_id: str, features: str, wanted: float | None) -> tuple:
        view = actions.view(services, dataset_id, features, int(wanted or 0) or None)  # type: ignore[arg-type]
        label = f"Use {view.k} head{'s' if view.k > 1 else ''}"
        return view.k, say(view.sentence), gr.Button(label), view.elbow, view.sizes, view.table

    @shown
    def draw(dataset_id: str, features: str, wanted: float | None, method: Method) -> tuple:
        figure, text = actions.row_map(services, dataset_id, features, int(wanted or 0) or None, method)  # type: ignore[arg-type]
        return figure, say(text), []

    @shown
    def select(dataset_id: str, event: gr.EventData) -> dict:
        chosen = actions.rows(services, dataset_id, selected_ids(event))
        return gr.update(value=chosen, label=f"{len(chosen)} selected rows")

    outputs = [found, answer, use, curve, bars, table]
    changed = gr.on(
        [tab.select, dataset.change, features.change, wanted.submit, wanted.blur],
        show,
        [dataset, features, wanted],
        outputs,
        api_visibility="private",
    )
    inputs = [dataset, features, wanted, method]
    changed.success(draw, inputs, [chart, caption, rows], api_visibility="private")
    method.change(draw, inputs, [chart, caption, rows], api_visibility="private")
    for selected in (chart.lasso, chart.pick):  # gr.on takes no custom events
        selected(select, dataset, rows, api_visibility="private")
    return ClustersTab(use, found)
