"""Train: the form, Start and Stop, and the run as it goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.actions import train as actions
from app.components.plot import plot_panel
from app.forms import values
from app.services import Services
from app.tabs.messages import LATEST, QUIET, say, sentence, shown, shown_stream
from app.tabs.recipe_form import RecipeForm
from hydralora.errors import HydraError

POLL_SECONDS = 1.0
LOG_SECONDS = 3.0


@dataclass(frozen=True)
class TrainTab:
    next: gr.Button


def build(services: Services, form: RecipeForm, run: gr.Dropdown, tab: gr.Tab, page: gr.Blocks) -> TrainTab:
    """What stands below the form."""
    fields = form.fields
    with gr.Row():
        start = gr.Button("Start training", variant="primary", elem_id="start")
        stop = gr.Button("Stop and keep what was learnt", elem_id="stop", interactive=False)
        resume = gr.Button("Resume", elem_id="resume", visible=False)
        trial = gr.Button("Estimate by a trial", elem_id="estimate")
    device = sentence("", elem_id="device")
    estimated = sentence("", elem_id="estimated")
    status = sentence("", elem_id="status")
    with gr.Row():
        loss = plot_panel("loss", "Loss over steps", empty="The loss is drawn here once training starts.")
        load = plot_panel("load", "Mean gate of each head over steps", empty="The load of each head is drawn here.")
    sentence(
        "Left: lower is better; the dotted line is a sample of the held-out rows, the diamonds are all of them, "
        "before and after. Right: a router that moves gives heads unlike loads on "
        "unlike tasks; entropy above the grey band means that the gates stayed as good as uniform, below it that one "
        "head takes nearly all. The load is a mean over all rows, so it "
        "can't show which task uses which head: the table of components below does, after the run."
    )
    with gr.Accordion("More curves", open=False), gr.Row():
        curves = plot_panel("curves", "Learning rate, gradient norm and speed", empty="Drawn once training starts.")
        groups = plot_panel("groups", "Held-out loss of each component", empty="Drawn at the first evaluation.")
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        wrap=True,
        interactive=False,
        elem_id="results",
        label="Held-out rows, before and after",
    )
    use = plot_panel(
        "use", "Mean gate of each head on each component", empty="After the run: which head answers which component."
    )
    following = gr.Button("Next: look inside A and B", elem_id="to-parameters")
    seen = gr.State("")
    outputs = [seen, status, start, stop, resume, loss, load, curves, groups, table, use]
    _log(services, run)

    def show(run_id: str | None, signature: str) -> tuple:
        try:
            view = actions.view(services, run_id, signature)
        except HydraError as error:  # in the status line: a message every second would be a storm
            return (gr.skip(), say(str(error)), *(gr.skip() for _ in outputs[2:]))
        if view is None:
            return tuple(gr.skip() for _ in outputs)
        buttons = (
            gr.Button(interactive=True),
            gr.Button(interactive=view.active),
            gr.Button(visible=view.resumable),
        )
        figures = (view.loss, view.load, view.curves, view.groups)
        return (view.signature, say(view.status), *buttons, *figures, view.table, view.use)

    def describe(dataset_id: str, model: str, *held: object) -> str:
        try:
            return say(actions.device_line(services, dataset_id, model, values(fields, held)))
        except HydraError:  # what is wrong stands beside its field
            return ""

    @shown
    def begin(dataset_id: str, model: str, *held: object) -> tuple:
        run_id = actions.start(services, dataset_id, model, values(fields, held))
        return gr.Dropdown(choices=actions.run_choices(services), value=run_id), gr.Button(interactive=False)

    @shown
    def go_on(run_id: str) -> gr.Button:
        actions.resume(services, run_id)
        return gr.Button(visible=False)

    @shown
    def end(run_id: str) -> gr.Button:
        actions.stop(services, run_id)
        return gr.Button(interactive=False)

    start.click(begin, form.inputs, [run, start], api_visibility="private")
    _estimating(services, form, trial, estimated)
    stop.click(end, run, stop, api_visibility="private")
    resume.click(go_on, run, resume, api_visibility="private")
    refreshing: dict[str, Any] = {"fn": show, "inputs": [run, seen], "outputs": outputs} | QUIET
    gr.Timer(POLL_SECONDS).tick(**refreshing)
    gr.on([run.change, page.load], **refreshing)
    sized = [fields["training.max_steps"], fields["training.batch_size"], form.model]
    gr.on(
        [tab.select, form.dataset.change, *(item.change for item in sized)],
        describe,
        form.inputs,
        device,
        **LATEST,
    )
    return TrainTab(following)


def _estimating(services: Services, form: RecipeForm, button: gr.Button, told: gr.HTML) -> None:
    """A trial of the run on the form's settings; another setting ends it, and takes its words away."""

    @shown_stream
    def estimate(dataset_id: str, model: str, *held: object) -> Iterator[str]:
        for step in actions.estimate(services, dataset_id, model, values(form.fields, held)):
            yield say(step)

    trying = button.click(estimate, form.inputs, told, **QUIET, trigger_mode="once")
    trying.failure(lambda: "", None, told, **QUIET)
    gr.on([item.change for item in form.inputs], lambda: "", None, told, cancels=[trying], **QUIET)


def _log(services: Services, run: gr.Dropdown) -> None:
    """The run's log, read again while it is open."""
    with gr.Accordion("Log", open=False, elem_id="log") as panel:
        search = gr.Textbox(label="Only lines with", max_lines=1, elem_id="log-search")
        lines = gr.Textbox(show_label=False, lines=12, max_lines=24, interactive=False, elem_id="log-lines")
    again = gr.Timer(LOG_SECONDS, active=False)

    @shown
    def read(run_id: str | None, search: str) -> str:
        return actions.log(services, run_id, search)

    gr.on([panel.expand, again.tick, search.change, run.change], read, [run, search], lines, **LATEST)
    panel.expand(lambda: gr.Timer(active=True), None, again, **QUIET)
    panel.collapse(lambda: gr.Timer(active=False), None, again, **QUIET)
