"""Components: the dataset's components, how stable their number is, and the number of heads that they suggest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import gradio as gr

from hydralora.errors import HydraError

from ...actions.components import tab as actions
from ...page.browser_state import KeptChoices
from ...page.buttons import action_button, download_button
from ...page.context import Context
from ...page.forms import Widget
from ...page.handlers import QUIET, Component, Updates, cancel_then, handler
from ...page.text import say, sentence
from ...services.background import Done
from ...widgets.plot import plot_panel
from .one_component import OneComponent
from .row_map import RowMap
from .settings import ComponentForm
from .trials import Trials

FILES: dict[Literal["csv", "parquet"], str] = {"csv": "CSV", "parquet": "Parquet"}


@dataclass(frozen=True)
class ComponentsTab:
    """The parts that other tabs need.

    Attributes:
        fields: the settings of a run's components.
        use, alone: buttons that plan a run with these heads, or on one component alone.
        k: how many components were found; `number`: the selected one.
    """

    fields: dict[str, Widget]
    use: gr.Button
    k: gr.State
    alone: gr.Button
    number: gr.Dropdown


def build(context: Context, tab: gr.Tab, store: KeptChoices) -> ComponentsTab:
    k = gr.State(None)
    overview = _Overview(k)
    form = ComponentForm(context, store)
    overview.draw()
    component = OneComponent(context, form)
    overview.draw_tasks()
    trials = Trials(context, form)
    row_map = RowMap(context, form)
    overview.wire(context, tab, form, component, trials, row_map)
    return ComponentsTab(form.fields, overview.use, k, component.alone, component.number)


class _Overview:
    """All components: their number, how it was found, and a row for each."""

    def __init__(self, k: gr.State) -> None:
        self.k = k
        self.answer = sentence("", elem_id="clusters-sentence")

    def draw(self) -> None:
        with gr.Row():
            self.use = action_button("Use these heads", "use-heads", 220, variant="primary", size="lg")
            self.files = {
                kind: download_button(f"Rows with components ({name})", f"components-{kind}", 250)
                for kind, name in FILES.items()
            }
            self.stop = action_button("Stop clustering", "stop-clustering", 160, visible=False, size="lg")
        with gr.Row():
            self.curve = plot_panel("elbow", "How the number of components was found")
            self.bars = plot_panel("sizes", "Rows in each component")
        self.curve_help = sentence(actions.HELP["kmeans"], elem_id="curve-help")
        self.table = gr.Dataframe(
            headers=actions.COLUMNS,
            column_widths=["7%", "12%", "27%", "27%", "27%"],
            wrap=True,
            interactive=False,
            elem_id="components",
            label="Components; click a row for details",
        )

    def draw_tasks(self) -> None:
        self.agreement = sentence("", elem_id="agreement")
        empty = "The rows have no task labels to compare with."
        self.tasks = plot_panel("tasks", "Rows of each task in each component", empty=empty)

    def wire(
        self,
        context: Context,
        tab: gr.Tab,
        form: ComponentForm,
        component: OneComponent,
        trials: Trials,
        row_map: RowMap,
    ) -> None:
        services, dataset = context.services, context.dataset

        @handler
        def show(dataset_id: str, number: int | None, *values: Component) -> Iterator[Updates]:
            off = gr.Button(interactive=False)
            working = {self.use: off, component.alone: off, self.stop: gr.Button(visible=True)}
            try:
                for step in actions.find(services, dataset_id, form.request(*values)):
                    if isinstance(step, Done):
                        yield self._filled(component, step.value, number)
                    else:
                        yield working | {self.answer: say(step)}
            except HydraError as error:
                yield self._cleared(component) | {self.answer: say(str(error))}
                raise

        @handler
        def rename(dataset_id: str, number: int, name: str, *values: Component) -> Updates:
            view = actions.rename(services, dataset_id, form.request(*values), number, name)
            return self._filled(component, view, number)

        @handler
        def write(dataset_id: str, *values: Component) -> Updates:
            request = form.request(*values)
            return {
                button: gr.DownloadButton(value=actions.rows_file(services, dataset_id, request, kind))
                for kind, button in self.files.items()
            }

        figures = [self.curve, self.curve_help, self.bars, self.table, self.agreement, self.tasks]
        outputs = [self.k, self.answer, self.use, self.stop, *figures, component.alone, component.number]
        inputs = [dataset, component.number, *form.inputs]
        changes = [tab.select, dataset.change, context.model.change, *form.changes]
        changed = context.signals.follow(changes, show, inputs, outputs)
        stopped = say("Stopped. Change a setting, or open this tab again, to restart.")
        cancel_then(self.stop.click, [changed], lambda: self._cleared(component) | {self.answer: stopped}, outputs)
        renamed = component.name.submit(
            rename, [dataset, component.number, component.name, *form.inputs], outputs, **QUIET
        )
        changed.success(**component.look, **QUIET)
        changed.success(**trials.forget, **QUIET)
        for event in (changed, renamed):
            event.success(write, [dataset, *form.inputs], list(self.files.values()), **QUIET)

        row_map.draw_after([changed.success, renamed.success])

        def choose(event: gr.SelectData) -> int:
            return int(event.row_value[0])

        self.table.select(choose, None, component.number, **QUIET).success(**component.look, **QUIET)

    def _filled(self, component: OneComponent, view: actions.ClusterView, number: int | None) -> Updates:
        return {
            self.k: view.k,
            self.answer: say(view.sentence),
            self.use: gr.Button(f"Use {view.k} head{'s' if view.k > 1 else ''}", interactive=True),
            component.alone: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
            self.curve: view.curve,
            self.curve_help: say(view.help),
            self.bars: view.sizes,
            self.table: view.table,
            self.agreement: say(view.agreement),
            self.tasks: view.tasks,
            component.number: component.choices(view.components, number),
        }

    def _cleared(self, component: OneComponent) -> Updates:
        """Remove the components of another dataset, or of other settings."""
        return {
            self.k: None,
            self.use: gr.Button("Use these heads", interactive=False),
            component.alone: gr.Button(interactive=False),
            self.stop: gr.Button(visible=False),
            self.curve: "",
            self.bars: "",
            self.table: [],
            self.agreement: "",
            self.tasks: "",
        }
