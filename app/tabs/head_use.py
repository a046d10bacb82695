"""Components and heads: whose rows each head takes, and which tokens."""

from collections.abc import Iterator

import gradio as gr

from app.actions import head_use as actions
from app.components.plot import plot_panel
from app.services import Services
from app.tabs.messages import LATEST, QUIET, say, sentence, shown, shown_stream


def build(services: Services, run: gr.Dropdown) -> None:
    with gr.Row():
        start = gr.Button("Read held-out rows", variant="primary", scale=0, min_width=180, elem_id="use-start")
        of = gr.Radio(
            [("components", "component"), ("tasks", "task")], value="component", label="Rows of", elem_id="use-of"
        )
        module = gr.Dropdown([actions.ALL], value=actions.ALL, label="Gates of", elem_id="use-module", min_width=260)
    told = sentence(
        "Did the router find the components? The run's model reads some of its held-out rows, which takes seconds to a "
        "minute, and the gates are averaged by the rows' components or tasks.",
        elem_id="use-sentence",
    )
    figure = plot_panel("use-figure", "Mean gate of each head on each component")
    head = gr.Radio([], value=None, label="Tokens that one head takes most", visible=False, elem_id="use-head")
    table = gr.Dataframe(
        headers=actions.TOKEN_COLUMNS,
        interactive=False,
        wrap=True,
        visible=False,
        elem_id="use-tokens",
        label="The token, what stands around it, and the row of the file it is in",
    )
    asked = [run, of, module]

    @shown_stream
    def measure(request: gr.Request, run_id: str | None, of: actions.Groups, module: str) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", "head use")
        for view in actions.measure(services, run_id, of, module):
            if not is_newest():
                return
            heads = [(f"head {i + 1}", i + 1) for i in range(view.heads)]
            known = view.modules or [actions.ALL]
            yield (
                gr.update(value=say(view.sentence)),
                gr.update(value=view.figure, visible=bool(view.figure)),
                gr.update(choices=known, value=module if module in known else actions.ALL),
                gr.update(choices=heads, visible=bool(heads)),
            )

    @shown_stream
    def again(request: gr.Request, run_id: str | None, of: actions.Groups, module: str) -> Iterator[tuple]:
        """Another look at what was measured; nothing is measured that nobody asked for."""
        if run_id and actions.is_measured(services, run_id):
            yield from measure(request, run_id, of, module)

    @shown
    def tokens(run_id: str, head: int | None, module: str) -> dict:
        found = actions.tokens(services, run_id, head - 1, module) if head else []
        return gr.update(value=found, visible=bool(found))

    def forget() -> tuple:
        hidden = gr.update(visible=False)
        return say("Another run is chosen. Read its held-out rows to see its heads."), hidden, hidden, hidden

    outputs = [told, figure, module, head]
    start.click(measure, asked, outputs, **QUIET)
    gr.on([of.change, module.change], again, asked, outputs, **LATEST)
    gr.on([head.change, module.change], tokens, [run, head, module], table, **LATEST)
    run.change(forget, None, [told, figure, head, table], **QUIET)
