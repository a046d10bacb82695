"""How A and the heads move while they are trained."""

from collections.abc import Iterator

import gradio as gr

from hydralora.figures import METHOD_NAMES
from hydralora.projection import Method

from ...actions.parameters import trajectory as actions
from ...page.text import LATEST, say, sentence, shown, shown_stream, until_superseded
from ...services import Services
from ...widgets.plot import plot_panel


def build(services: Services, run: gr.Dropdown, view_tab: gr.Tab) -> None:
    with gr.Row():
        module = gr.Dropdown([], value=None, label="Module", elem_id="trajectory-module", min_width=320, scale=2)
        method = gr.Radio(
            [(name, method) for method, name in METHOD_NAMES.items()],
            value="pca",
            label="Projection",
            elem_id="trajectory-method",
            min_width=220,
        )
    told = sentence("", elem_id="trajectory-sentence")
    with gr.Row():
        panels = [
            plot_panel(f"trajectory-{i}", "Matrices from step to step", caption="trajectory-sentence")
            for i in range(actions.PANELS)
        ]

    @shown
    def choices(run_id: str | None, chosen: str | None) -> dict:
        known = actions.modules(services, run_id)
        return gr.update(choices=known, value=chosen if chosen in known else next(iter(known), None))

    @shown_stream
    def show(request: gr.Request, run_id: str | None, module: str | None, method: Method) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", "trajectory")
        for view in until_superseded(is_newest, actions.view(services, run_id, module, method)):
            if view.figures is None:
                drawn = [gr.skip()] * len(panels)
            else:
                figures = view.figures + [""] * (len(panels) - len(view.figures))
                drawn = [gr.update(value=figure, visible=bool(figure)) for figure in figures]
            yield say(view.sentence), *drawn

    asked = [run, module, method]
    opened = gr.on([view_tab.select, run.change], choices, [run, module], module, **LATEST)
    opened.then(show, asked, [told, *panels], api_visibility="private", show_progress="hidden")
    gr.on([module.change, method.change], show, asked, [told, *panels], **LATEST)
