"""Components and heads: whose rows each head takes, and which tokens."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...actions.parameters import head_use as actions
from ...page.text import LATEST, QUIET, say, sentence, shown, shown_stream, until_superseded
from ...services import Services
from ...widgets.plot import plot_panel

KIND = "head use"


def build(services: Services, run: gr.Dropdown) -> None:
    with gr.Row():
        start = gr.Button("Read held-out rows", variant="primary", scale=0, min_width=220, elem_id="use-start")
        of = gr.Radio(
            [("components", "component"), ("tasks", "task")], value="component", label="Rows of", elem_id="use-of"
        )
        module = gr.Dropdown([actions.ALL], value=actions.ALL, label="Gates of", elem_id="use-module", min_width=260)
    told = sentence(
        "Did the router find the components? The run's model reads some of its held-out rows, which takes seconds to a "
        "minute, and the gates are averaged by the rows' components or tasks.",
        elem_id="use-sentence",
    )
    figure = plot_panel("use-figure", "Mean gate of each head on each component", caption="use-sentence")
    head = gr.Radio([], value=None, label="Tokens that one head takes most", visible=False, elem_id="use-head")
    behind = behind_a_head("use")
    asked = [run, of, module]

    @shown_stream
    def measure(request: gr.Request, run_id: str | None, of: actions.Groups, module: str) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", KIND, run_id)
        for view in until_superseded(is_newest, actions.measure(services, run_id, of, module)):
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
    def look_behind(run_id: str, head: int | None, module: str) -> list[dict]:
        return seen_behind(services, run_id, head - 1 if head else None, module)

    def forget(request: gr.Request, run_id: str | None) -> Any:
        if not services.turns_to(request.session_hash or "", KIND, run_id):
            return gr.skip()
        hidden = gr.update(visible=False)
        return (
            say("Read the chosen run's held-out rows to see its heads."),
            hidden,
            gr.update(choices=[actions.ALL], value=actions.ALL),
            gr.update(choices=[], value=None, visible=False),
            *(hidden,) * len(behind),
        )

    outputs = [told, figure, module, head]
    measured = start.click(measure, asked, outputs, trigger_mode="multiple", **QUIET)
    measured.then(again, asked, outputs, **QUIET)  # what is asked may have changed meanwhile
    gr.on([of.change, module.change], again, asked, outputs, **LATEST)
    gr.on([head.change, module.change], look_behind, [run, head, module], behind, **LATEST)
    run.change(forget, run, [*outputs, *behind], **LATEST)


def behind_a_head(elem_id: str) -> list[gr.Dataframe]:
    """Where the tokens that a head takes most, and the training rows that use it most, are shown; hidden at first."""
    told = "Held-out tokens that this head takes most, with what stands around them"
    tables: list[tuple[str, list[str], list[str | int], str]] = [
        ("tokens", actions.TOKEN_COLUMNS, ["25%", "19%", "24%", "16%", "16%"], told),
        ("rows", actions.ROW_COLUMNS, ["16%", "44%", "20%", "20%"], "Training rows that use this head most"),
    ]
    return [
        gr.Dataframe(
            headers=headers,
            column_widths=widths,
            interactive=False,
            wrap=True,
            visible=False,
            elem_id=f"{elem_id}-{name}",
            label=label,
        )
        for name, headers, widths, label in tables
    ]


def seen_behind(services: Services, run_id: str | None, head: int | None, module: str) -> list[dict]:
    """Updates of `behind_a_head`; hidden where no head is chosen, or the run's rows were not read yet."""
    if not run_id or head is None or not actions.is_measured(services, run_id):
        return [gr.update(visible=False)] * 2
    found = (
        actions.tokens(services, run_id, head, module),
        actions.training_rows(services, run_id, head, module),
    )
    return [gr.update(value=rows, visible=bool(rows)) for rows in found]
