"""Train: the form, Start and Stop, and the run as it goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from hydralora.errors import HydraError

from ...actions.train import run as actions
from ...page.forms import values
from ...page.text import LATEST, QUIET, say, sentence, shown, shown_stream
from ...services import Services
from ...widgets.plot import plot_panel
from .recipe_form import RecipeForm

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
        measure = gr.Button("Stop, then measure", elem_id="stop-measure", visible=False)
        resume = gr.Button("Resume", elem_id="resume", visible=False)
        sooner = gr.Button("Sooner", elem_id="sooner", visible=False)
        later = gr.Button("Later", elem_id="later", visible=False)
        trial = gr.Button("Estimate by a trial", elem_id="estimate")
    device = sentence("", elem_id="device")
    estimated = sentence("", elem_id="estimated")
    status = sentence("", elem_id="status")
    usage = sentence("", elem_id="usage")
    with gr.Row():
        loss = plot_panel("loss", "Loss over steps", empty="The loss is drawn here once training starts.")
        load = plot_panel("load", "Mean gate of each head over steps", empty="The load of each head is drawn here.")
    sentence(
        "Left: lower is better; the dotted line is a sample of the held-out rows, the diamonds are all of them, "
        "before and after. Right: a router that moves gives heads unlike loads on "
        "unlike tasks; entropy above the grey band means that the gates stayed as good as uniform, below it that one "
        "head takes most; a router that starts from the components starts at its lower edge. The load is a mean over "
        "all rows, so it can't show which task uses which head: the table of components below does, after the run."
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
    samples = gr.Dataframe(
        headers=actions.SAMPLE_COLUMNS,
        wrap=True,
        interactive=False,
        elem_id="samples",
        label="The same few held-out prompts, answered before and now",
    )
    use = plot_panel(
        "use", "Mean gate of each head on each component", empty="After the run: which head answers which component."
    )
    following = gr.Button("Next: look inside A and B", elem_id="to-parameters")
    _log(services, run)
    _watching(
        services,
        run,
        page,
        {
            "words": [status, usage],
            "buttons": [start, stop, measure, resume, sooner, later],
            "curves": [loss, load, curves],
            "measured": [groups, table, samples, use],
        },
    )

    def describe(dataset_id: str, model: str, *held: object) -> str:
        try:
            return say(actions.device_line(services, dataset_id, model, values(fields, held)))
        except HydraError:  # what is wrong stands beside its field
            return ""

    _starting(services, form, run, start)
    _steering(services, run, {stop: False, measure: True}, resume, (sooner, later))
    _estimating(services, form, trial, estimated)
    sized = [fields["training.max_steps"], fields["training.batch_size"], form.model]
    gr.on(
        [tab.select, form.dataset.change, *(item.change for item in sized)],
        describe,
        form.inputs,
        device,
        **LATEST,
    )
    return TrainTab(following)


def _watching(services: Services, run: gr.Dropdown, page: gr.Blocks, parts: dict[str, list[Any]]) -> None:
    """Look at the run every second, and show what changed of it, by part.

    The look itself fills nothing but states on the server: Gradio builds each component anew that a listener could
    fill, also where it is skipped, and many pages look at once.
    """
    seen = {part: gr.State("") for part in parts}

    def look(run_id: str | None) -> list[Any]:
        try:
            marks = actions.view(services, run_id).marks
            return [marks[part] for part in seen]
        except HydraError as error:  # in the status line: a message every second would be a storm
            return [str(error) if part == "words" else gr.skip() for part in seen]

    def words(run_id: str | None) -> list[str]:
        try:
            view = actions.view(services, run_id)
        except HydraError as error:
            return [say(str(error)), ""]
        return [say(view.status), say(view.usage)]

    def buttons(run_id: str | None) -> list[gr.Button]:
        view = actions.view(services, run_id)
        visible = view.active and not view.waiting, view.resumable, view.waiting, view.waiting
        return [
            gr.Button(interactive=True),
            gr.Button(interactive=view.active),
            *(gr.Button(visible=one) for one in visible),
        ]

    def values_of(part: str, run_id: str | None) -> list[Any]:
        view = actions.view(services, run_id)
        return [getattr(view, name) for name in actions.PARTS[part]]

    looking: dict[str, Any] = {"fn": look, "inputs": run, "outputs": list(seen.values())} | QUIET
    gr.Timer(POLL_SECONDS).tick(**looking)
    gr.on([run.change, page.load], **looking)
    show = {"words": words, "buttons": buttons} | {part: partial(values_of, part) for part in ("curves", "measured")}
    for part, filled in parts.items():
        seen[part].change(shown(show[part]), run, filled, **LATEST)


def _starting(services: Services, form: RecipeForm, run: gr.Dropdown, start: gr.Button) -> None:
    @shown
    def begin(dataset_id: str, model: str, *held: object) -> tuple:
        run_id = actions.start(services, dataset_id, model, values(form.fields, held))
        return gr.Dropdown(choices=actions.run_choices(services), value=run_id), gr.Button(interactive=False)

    start.click(begin, form.inputs, [run, start], api_visibility="private")


def _steering(
    services: Services, run: gr.Dropdown, stops: dict[gr.Button, bool], resume: gr.Button, moves: Sequence[gr.Button]
) -> None:
    """What can be asked of a run that is there. `stops`: buttons, and whether they ask for a measurement."""

    @shown
    def go_on(run_id: str) -> gr.Button:
        actions.resume(services, run_id)
        return gr.Button(visible=False)

    @shown
    def swap(label: str, run_id: str) -> None:
        actions.swap(services, run_id, -1 if label == "Sooner" else 1)

    for button, measure in stops.items():
        end = partial(actions.stop, services, measure=measure)
        button.click(shown(end), run, None, api_visibility="private")
    resume.click(go_on, run, resume, api_visibility="private")
    for button in moves:
        button.click(swap, [button, run], None, **QUIET)


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
