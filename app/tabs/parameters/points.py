"""A's and heads as points; one of them looked into."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from hydralora.figures import METHOD_NAMES, MatrixColour
from hydralora.projection import NEIGHBOURS, Method

from ...actions.parameters import points as actions
from ...actions.parameters.head_use import is_measured
from ...actions.train.run import run_choices
from ...page.text import LATEST, QUIET, say, sentence, shown, shown_stream, until_superseded
from ...services import Services
from ...widgets.plot import plot_panel, selected_ids
from .head_use import behind_a_head, seen_behind
from .shapes import shapes_choice, shapes_update

NOTHING = "Lasso points, or click one, to list their matrices here"


def build(services: Services, run: gr.Dropdown, tab: gr.Tab, view_tab: gr.Tab) -> None:
    with gr.Row():
        method = gr.Radio(
            [(name, method) for method, name in METHOD_NAMES.items()],
            value="pca",
            label="Projection",
            elem_id="ab-method",
            min_width=220,
        )
        colour = gr.Radio(
            ["head", "kind", "layer", "module", "run", "step"],
            value="head",
            label="Colour by",
            elem_id="ab-colour",
            min_width=320,
        )
        dims = gr.Radio([("2-D", 2), ("3-D", 3)], value=2, label="Dimensions", elem_id="ab-dims", min_width=140)
        what = gr.Radio(
            [("A and heads", "parts"), ("products B·A", "products")],
            value="parts",
            label="Matrices",
            elem_id="ab-what",
            min_width=240,
        )
    with gr.Accordion("Other runs beside it, seed, neighbours", open=False, elem_id="ab-more"), gr.Row():
        others = gr.Dropdown(
            [], value=[], multiselect=True, label="Other runs in the same picture", elem_id="ab-runs", scale=2
        )
        neighbours = gr.Number(
            None,
            label="Neighbours: t-SNE's perplexity, UMAP's n_neighbors",
            info=f"Empty: {NEIGHBOURS['tsne']} for t-SNE, {NEIGHBOURS['umap']} for UMAP. PCA has none.",
            precision=0,
            elem_id="ab-neighbours",
        )
        seed = gr.Number(
            0,
            label="Seed",
            info="UMAP's. PCA and t-SNE draw nothing at random.",
            precision=0,
            minimum=0,
            elem_id="ab-seed",
        )
    shapes = shapes_choice("ab-shapes")
    with gr.Row():
        panels = [plot_panel(f"ab-{i}", "A and heads as points", caption="ab-caption") for i in range(actions.PANELS)]
    caption = sentence("", elem_id="ab-caption")
    about = sentence("Click a point to look into its matrix.", elem_id="ab-about")
    with gr.Row():
        values = plot_panel("ab-spectrum", "Singular values of the matrix")
        siblings = plot_panel("ab-siblings", "Cosines with the module's other heads")
    behind = behind_a_head("ab")
    table = gr.Dataframe(headers=actions.COLUMNS, interactive=False, elem_id="ab-points", label=NOTHING, max_height=320)
    asked: list[Any] = [run, others, what, method, dims, neighbours, seed, shapes, colour]

    @shown_stream
    def show(request: gr.Request, *held: Any) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", "points")
        for view in until_superseded(is_newest, actions.view(services, _wanted(*held), held[-1])):
            if view.figures is None:
                drawn = [gr.skip()] * len(panels)
            else:
                figures = view.figures + [""] * (len(panels) - len(view.figures))
                drawn = [gr.update(value=figure, visible=bool(figure)) for figure in figures]
            yield (*drawn, say(view.sentence), shapes_update(view.shapes, view.drawn))

    @shown
    def select(event: gr.EventData, *held: Any) -> dict:
        found = actions.rows(services, _wanted(*held), selected_ids(event))
        return gr.update(value=found, label=f"{len(found)} selected matrices" if found else NOTHING)

    @shown
    def pick(event: gr.EventData, *held: Any) -> tuple:
        ids = selected_ids(event)
        seen = actions.look_into(services, _wanted(*held), ids[0]) if ids else actions.MatrixView("")
        run_id, module, head = seen.head or (None, "", None)
        unread = run_id is not None and not is_measured(services, run_id)
        more = " Read held-out rows, in Components and heads, to see the tokens and rows behind it." if unread else ""
        return (
            say(seen.sentence + more),
            gr.update(value=seen.spectrum, visible=bool(seen.spectrum)),
            gr.update(value=seen.siblings, visible=bool(seen.siblings)),
            *seen_behind(services, run_id, head, module),
            select(event, *held),
        )

    @shown
    def other_runs(run_id: str | None, chosen: list[str]) -> dict:
        known = [(label, one) for label, one in run_choices(services) if one != run_id]
        return gr.update(choices=known, value=[one for one in chosen if one in {two for _, two in known}])

    def forget() -> tuple:
        closed = gr.update(value="", visible=False)
        hidden = [gr.update(visible=False)] * len(behind)
        return (
            say("Click a point to look into its matrix."),
            closed,
            closed,
            *hidden,
            gr.update(value=[], label=NOTHING),
        )

    gr.on([tab.select, view_tab.select, run.change], other_runs, [run, others], others, **LATEST)
    drawing = [tab.select, view_tab.select, *(field.change for field in asked)]
    gr.on(drawing, show, asked, [*panels, caption, shapes], **LATEST)
    gr.on([field.change for field in asked], forget, None, [about, values, siblings, *behind, table], **QUIET)
    for panel in panels:  # gr.on takes no custom events
        panel.lasso(select, asked, table, api_visibility="private")
        panel.pick(pick, asked, [about, values, siblings, *behind, table], api_visibility="private")


def _wanted(
    run_id: str | None,
    others: list[str],
    what: str,
    method: Method,
    dims: int,
    neighbours: float | None,
    seed: float | None,
    shapes: list[str] | None,
    colour: MatrixColour,
) -> actions.Wanted:
    runs = (run_id, *others) if run_id else ()
    near = int(neighbours) if neighbours else None
    return actions.Wanted(
        runs, what == "products", method, dims, near, int(seed or 0), steps=colour == "step", shapes=tuple(shapes or ())
    )
