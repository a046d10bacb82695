"""Components and heads: which rows and tokens use each head."""

from collections.abc import Iterator

import gradio as gr

from ...actions.explore import head_use as actions
from ...page.buttons import action_button, new_choices
from ...page.context import Context
from ...page.handlers import QUIET, Updates, arrival, handler, latest
from ...page.text import say, sentence
from ...services import Services
from ...widgets.plot import plot_panel

KIND = "head use"


def build(context: Context) -> None:
    """The view."""
    _HeadUse().wire(context)


class HeadTables:
    """The tokens and the training rows that use a head most; hidden at first."""

    def __init__(self, elem_id: str) -> None:
        self.tokens = _table(
            f"{elem_id}-tokens",
            "Held-out tokens that use this head most, in context",
            actions.TOKEN_COLUMNS,
            ["25%", "19%", "24%", "16%", "16%"],
        )
        self.rows = _table(
            f"{elem_id}-rows",
            "Training rows that use this head most",
            actions.ROW_COLUMNS,
            ["16%", "44%", "20%", "20%"],
        )

    @property
    def outputs(self) -> list[gr.Dataframe]:
        return [self.tokens, self.rows]

    def hidden(self) -> Updates:
        return dict.fromkeys(self.outputs, gr.Dataframe(visible=False))

    def of(self, services: Services, run_id: str | None, head: int | None, module: str) -> Updates:
        """Hidden if no head is chosen, or the run's rows have not been read yet."""
        if not run_id or head is None or not actions.is_measured(services, run_id):
            return self.hidden()
        tokens = actions.tokens(services, run_id, head, module)
        rows = actions.training_rows(services, run_id, head, module)
        return {
            self.tokens: gr.Dataframe(value=tokens, visible=bool(tokens)),
            self.rows: gr.Dataframe(value=rows, visible=bool(rows)),
        }


def _table(elem_id: str, label: str, headers: list[str], widths: list[str | int]) -> gr.Dataframe:
    return gr.Dataframe(
        headers=headers,
        column_widths=widths,
        interactive=False,
        wrap=True,
        visible=False,
        elem_id=elem_id,
        label=label,
    )


class _HeadUse:
    def __init__(self) -> None:
        with gr.Row():
            self.start = action_button("Read held-out rows", "use-start", 220, variant="primary", size="lg")
            groups = [("components", "component"), ("tasks", "task")]
            self.groups = gr.Radio(groups, value="component", label="Rows of", elem_id="use-of")
            self.module = gr.Dropdown(
                [actions.ALL], value=actions.ALL, label="Gates of", elem_id="use-module", min_width=260
            )
        self.reading = sentence(
            "Did the router find the components? The run's model reads some of its held-out rows, which takes up to "
            "a minute. Then the gates are averaged by component or by task.",
            elem_id="use-sentence",
        )
        self.figure = plot_panel("use-figure", "Mean gate of each head on each component", caption="use-sentence")
        self.head = gr.Radio([], value=None, label="Tokens that use one head most", visible=False, elem_id="use-head")
        self.tables = HeadTables("use")

    def wire(self, context: Context) -> None:
        services, signals, run = context.services, context.signals, context.run

        def views(run_id: str | None, groups: actions.Groups, module: str) -> Iterator[Updates]:
            for view in actions.measure(services, run_id, groups, module):
                yield self._updates(view, module)

        measure = latest(services, KIND, about_run=True)(views)

        @handler
        def again(request: gr.Request, run_id: str | None, groups: actions.Groups, module: str) -> Iterator[Updates]:
            """Show measurements that exist; measure nothing without a request."""
            if run_id and actions.is_measured(services, run_id):
                yield from measure(request, run_id, groups, module)

        @handler
        def look_behind(run_id: str, head: int | None, module: str) -> Updates:
            return self.tables.of(services, run_id, head - 1 if head else None, module)

        def forget(request: gr.Request, run_id: str | None) -> Updates:
            if not services.sessions.switch_to(request.session_hash or "", KIND, run_id, arrival(request)):
                return gr.skip()
            return self._unread() | self.tables.hidden()

        inputs, outputs = [run, self.groups, self.module], [self.reading, self.figure, self.module, self.head]
        measured = self.start.click(measure, inputs, outputs, trigger_mode="multiple", **QUIET)
        measured.then(again, inputs, outputs, **QUIET)  # the choices may have changed meanwhile
        signals.follow([self.groups.change, self.module.change], again, inputs, outputs)
        behind = [run, self.head, self.module]
        signals.follow([self.head.change, self.module.change], look_behind, behind, self.tables.outputs)
        signals.follow([run.change], forget, run, [*outputs, *self.tables.outputs])

    def _updates(self, view: actions.UseView, module: str) -> Updates:
        heads = [(f"head {i + 1}", i + 1) for i in range(view.heads)]
        known = view.modules or [actions.ALL]
        return {
            self.reading: say(view.sentence),
            self.figure: gr.HTML(value=view.figure, visible=bool(view.figure)),
            self.module: new_choices(gr.Dropdown, known, module, module if module in known else actions.ALL),
            self.head: gr.Radio(choices=heads, visible=bool(heads)),
        }

    def _unread(self) -> Updates:
        return {
            self.reading: say("Read the chosen run's held-out rows to see its heads."),
            self.figure: gr.HTML(visible=False),
            self.module: gr.Dropdown(choices=[actions.ALL], value=actions.ALL),
            self.head: gr.Radio(choices=[], value=None, visible=False),
        }
