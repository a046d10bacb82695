"""Clusters: the components of the dataset, how sure their number is, and the number of heads that they suggest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.actions import clusters as actions
from app.actions.background import Done
from app.actions.data import COLUMNS as ROW_COLUMNS
from app.actions.data import WIDTHS as ROW_WIDTHS
from app.components.plot import plot_panel, selected_ids
from app.services import Clustering, Services
from app.tabs.messages import say, sentence, shown, shown_stream
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
            info="0 finds their number.",
            minimum=0,
            maximum=64,
            precision=0,
            min_width=120,
            elem_id="k",
        )
        how = gr.Radio(
            [("k-means", "kmeans"), ("DBSCAN", "dbscan")],
            value="kmeans",
            label="Method",
            info="DBSCAN leaves rows in no dense part as noise.",
            elem_id="cluster-method",
        )
        features = gr.Radio(
            [("TF-IDF, reduced", "tfidf-svd"), ("plain TF-IDF (the paper's)", "tfidf")],
            value="tfidf-svd",
            label="Text features",
            elem_id="features",
        )
        text = gr.Radio(
            [("the question", "question"), ("question and answer", "everything")],
            value="question",
            label="Text compared",
            elem_id="text",
        )
    with gr.Row():
        use = gr.Button("Use these heads", variant="primary", elem_id="use-heads", scale=0, min_width=220)
        export = gr.DownloadButton(
            "Download rows with components (CSV)", elem_id="components-csv", size="md", scale=0, min_width=320
        )
        stop = gr.Button("Stop clustering", visible=False, elem_id="stop-clustering", scale=0, min_width=160)
    with gr.Row():
        curve = plot_panel(
            "elbow",
            "Sum of squared distances over the number of components",
            empty="DBSCAN has no such curve: its number follows from how dense the rows lie.",
        )
        bars = plot_panel("sizes", "Rows in each component")
    sentence(
        "The curve falls steeply while each new component explains something, then bends: that is the elbow. The "
        "components set how many heads there are and may start the router; no row is ever assigned to a head."
    )
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        column_widths=["7%", "12%", "27%", "27%", "27%"],
        wrap=True,
        interactive=False,
        elem_id="components",
        label="Components",
    )
    agreement = sentence("", elem_id="agreement")
    tasks = plot_panel("tasks", "Rows of each task in each component", empty="The rows name no task to compare with.")
    asked = [wanted, features, how, text]
    view = _map(services, dataset, asked)

    @shown_stream
    def show(dataset_id: str, *asked: Any) -> Iterator[tuple]:
        way = _clustering(*asked)
        for step in actions.find(services, dataset_id, way):
            if isinstance(step, Done):
                seen = step.value
                label = f"Use {seen.k} head{'s' if seen.k > 1 else ''}"
                file = actions.rows_file(services, dataset_id, way)
                yield (
                    seen.k,
                    say(seen.sentence),
                    gr.Button(label, interactive=True),
                    gr.DownloadButton(value=file),
                    gr.Button(visible=False),
                    seen.curve,
                    seen.sizes,
                    seen.table,
                    say(seen.agreement),
                    seen.tasks,
                )
            else:
                busy = gr.skip(), say(step), gr.Button(interactive=False), gr.skip(), gr.Button(visible=True)
                yield (*busy, *(gr.skip() for _ in range(5)))

    changed = gr.on(
        [tab.select, dataset.change, features.change, how.change, text.change, wanted.submit, wanted.blur],
        show,
        [dataset, *asked],
        [found, answer, use, export, stop, curve, bars, table, agreement, tasks],
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    stop.click(
        lambda: (say("Stopped. Choose again to start anew."), gr.Button(visible=False)),
        None,
        [answer, stop],
        cancels=[changed],
        api_visibility="private",
    )
    changed.success(**view, api_visibility="private")
    return ClustersTab(use, found)


def _map(services: Services, dataset: gr.Dropdown, asked: list[Any]) -> dict[str, Any]:
    """Draw the map and the table of selected rows; returns the listener that fills them."""
    method = gr.Radio(
        [("PCA", "pca"), ("t-SNE", "tsne"), ("UMAP", "umap")], value="pca", label="Map drawn by", elem_id="map-method"
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
    def draw(dataset_id: str, method: Method, *asked: Any) -> tuple:
        figure, text = actions.row_map(services, dataset_id, _clustering(*asked), method)
        return figure, say(text), []

    @shown
    def select(dataset_id: str, event: gr.EventData) -> dict:
        chosen = actions.rows(services, dataset_id, selected_ids(event))
        return gr.update(value=chosen, label=f"{len(chosen)} selected rows")

    drawing: dict[str, Any] = {"fn": draw, "inputs": [dataset, method, *asked], "outputs": [chart, caption, rows]}
    method.change(**drawing, api_visibility="private")
    for selected in (chart.lasso, chart.pick):  # gr.on takes no custom events
        selected(select, dataset, rows, api_visibility="private")
    return drawing


def _clustering(wanted: float | None, features: Any, method: Any, text: Any) -> Clustering:
    return Clustering(int(wanted or 0) or None, features, method, text)
