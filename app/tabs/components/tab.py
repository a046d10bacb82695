"""Components: how many kinds of rows the dataset holds, which ones, and the number of heads that they suggest."""

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
from ...page.text import explain, reading_help, say, sentence
from ...services.background import Done
from ...widgets.component_list import component_list
from ...widgets.plot import AWAITED, plot_panel
from ...widgets.progress import progress_bar
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
    overview = _Overview()
    with gr.Row(elem_id="components-main"):
        with gr.Column(scale=1, elem_classes=["picture"]):
            row_map = RowMap()
        with gr.Column(scale=1, elem_classes=["picture"]):
            overview.draw_list()
    row_map.draw_rows()
    component = OneComponent()
    overview.draw_more()
    form = ComponentForm(context, store, overview.k)
    trials = Trials(context, form)
    overview.wire(context, tab, form, component, trials, row_map)
    return ComponentsTab(form.fields, overview.use, overview.k, component.alone, component.number)


class _Overview:
    """All components: the verdict on their number, how it was found, and their list.

    Attributes:
        k: their number, None until it is found.
        list: the list of components; `shown` the components that it lists.
    """

    def __init__(self) -> None:
        self.k = gr.State(None)
        with gr.Row(elem_id="components-head"):
            with gr.Column(scale=1, min_width=300):
                self.answer = sentence("", elem_id="clusters-sentence")
                self.progress = progress_bar("components-progress")
            self.stop = action_button("Stop", "stop-clustering", 90, visible=False)
            self.use = action_button("Use these heads", "use-heads", 170, variant="primary", interactive=False)

    def draw_list(self) -> None:
        self.list = component_list("component-list")
        self.curve = plot_panel("elbow", "How the number of components was found", fills=True, awaited=True)
        self.curve_help = reading_help(actions.HELP["kmeans"], "curve-help")

    def draw_more(self) -> None:
        with gr.Accordion("Task labels of each component", open=False, elem_id="task-labels"):
            self.agreement = sentence("", elem_id="agreement")
            self.tasks = plot_panel(
                "tasks",
                "Rows of each task in each component",
                empty="The rows have no task labels to compare with.",
                awaited=True,
            )
        with gr.Accordion("Save the rows with their components", open=False, elem_id="save-components"), gr.Row():
            self.files = {kind: download_button(name, f"components-{kind}", 140) for kind, name in FILES.items()}

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
            request = form.request(*values)
            if not services.components.are_found(dataset_id, request):
                yield self._awaited(component, row_map) | {self.stop: gr.Button(visible=True)}
            try:
                for step in actions.find(services, dataset_id, request):
                    if isinstance(step, Done):
                        yield self._filled(component, step.value, number)
                    else:
                        yield {self.progress: {"fraction": step.fraction or 0, "place": step.what}}
            except HydraError as error:
                yield self._cleared(component, row_map) | {self.answer: say(str(error))}
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

        found = [self.k, self.answer, self.progress, self.use, self.stop, self.curve, self.curve_help]
        outputs = [*found, self.agreement, self.tasks, component.alone, component.number, self.list, row_map.map]
        changes = [tab.select, dataset.change, context.model.change, *form.changes]
        changed = context.signals.follow(changes, show, [dataset, component.number, *form.inputs], outputs)
        stopped = say("Stopped. Change a setting, or open this page again, to restart.")
        cancel_then(
            self.stop.click, [changed], lambda: self._cleared(component, row_map) | {self.answer: stopped}, outputs
        )
        renamed = component.name.submit(
            rename, [dataset, component.number, component.name, *form.inputs], outputs, **QUIET
        )
        ends = [changed.success, renamed.success]
        row_map.wire(context, form, ends, self.list, component)
        component.wire(context, form, ends)
        changed.success(**trials.forget, **QUIET)
        for event in (changed, renamed):
            event.success(write, [dataset, *form.inputs], list(self.files.values()), **QUIET)

    def _filled(self, component: OneComponent, view: actions.ClusterView, number: int | None) -> Updates:
        return {
            self.k: view.k,
            self.answer: say(view.sentence),
            self.progress: None,
            self.use: gr.Button(f"Use {view.k} head{'s' if view.k > 1 else ''}", interactive=True),
            component.alone: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
            self.curve: view.curve,
            self.curve_help: explain(view.help),
            self.agreement: say(view.agreement),
            self.tasks: view.tasks,
            component.number: component.choices(view.components, number),
            self.list: actions.list_value(view.listed),
        }

    def _awaited(self, component: OneComponent, row_map: RowMap) -> Updates:
        """Nothing is known yet of this dataset's components, or of those by these settings."""
        figures = {panel: AWAITED for panel in (self.curve, self.tasks, row_map.map)}
        return figures | {
            self.k: None,
            self.answer: "",
            self.use: gr.Button("Use these heads", interactive=False),
            component.alone: gr.Button(interactive=False),
            self.agreement: "",
            self.list: None,
        }

    def _cleared(self, component: OneComponent, row_map: RowMap) -> Updates:
        """There are no components: the computation failed, or was stopped."""
        figures = {panel: "" for panel in (self.curve, self.tasks, row_map.map)}
        ended: Updates = {self.progress: None, self.stop: gr.Button(visible=False)}
        return self._awaited(component, row_map) | figures | ended | {self.list: actions.list_value([])}
