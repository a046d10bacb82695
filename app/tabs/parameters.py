"""Parameters: A and the heads of the chosen run as points."""

from dataclasses import dataclass

import gradio as gr

from app.actions import parameters as actions
from app.components.plot import plot_panel, selected_ids
from app.services import MODEL_QUEUE, Services
from app.tabs.messages import say, sentence, shown
from hydralora.projection import Method


@dataclass(frozen=True)
class ParametersTab:
    next: gr.Button


def build(services: Services, run: gr.Dropdown, tab: gr.Tab) -> ParametersTab:
    with gr.Row():
        method = gr.Radio(
            [("PCA", "pca"), ("t-SNE", "tsne"), ("UMAP", "umap")], value="pca", label="Projection", elem_id="ab-method"
        )
        colour = gr.Radio(["head", "kind", "layer", "module"], value="head", label="Colour by", elem_id="ab-colour")
    with gr.Row():
        panels = [plot_panel(f"ab-{i}", "A and heads as points") for i in range(actions.PANELS)]
    caption = sentence("", elem_id="ab-caption")
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        interactive=False,
        elem_id="ab-points",
        label="Lasso points, or click one, to list their matrices here",
    )
    following = gr.Button("Next: talk to it", elem_id="to-chat")

    @shown
    def show(run_id: str | None, method: Method, colour: str) -> tuple:
        view = actions.view(services, run_id, method, colour)
        drawn = view.figures + [""] * (len(panels) - len(view.figures))
        return (*(gr.update(value=figure, visible=bool(figure)) for figure in drawn), say(view.sentence), [])

    @shown
    def select(run_id: str, method: Method, event: gr.EventData) -> dict:
        points = actions.points(services, run_id, method, selected_ids(event))
        return gr.update(value=points, label=f"{len(points)} selected matrices")

    gr.on(
        [tab.select, run.change, method.change, colour.change],
        show,
        [run, method, colour],
        [*panels, caption, table],
        concurrency_id=MODEL_QUEUE,
        trigger_mode="always_last",
        api_visibility="private",
    )
    for panel in panels:
        for selected in (panel.lasso, panel.pick):  # gr.on takes no custom events
            selected(select, [run, method], table, api_visibility="private")
    return ParametersTab(following)
