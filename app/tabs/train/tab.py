"""Train: the form, the buttons of a run, and its progress."""

from collections.abc import Callable, Iterator
from functools import partial

import gradio as gr

from hydralora.errors import HydraError

from ...actions.train import recipe_form as form_actions
from ...actions.train import tab as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.forms import values
from ...page.handlers import QUIET, Component, Updates, cancel_then, handler
from ...page.text import say, sentence
from ...services import Services
from ...widgets.plot import plot_panel
from ...widgets.progress import progress_bar
from ...widgets.samples import sample_answers
from .recipe_form import RecipeForm

POLL_SECONDS = 1.0
LOG_SECONDS = 3.0
HOW_TO_READ = (
    "Left: lower is better. The dotted line is a sample of the held-out rows; the diamonds are all of them, before and "
    "after. Right: if the router learns, heads get different loads on different tasks. Entropy above the grey band "
    "means that the gates stayed nearly uniform; below it, that one head dominates. A router that starts from the "
    "components starts at the band's lower edge. The load is a mean over all rows, so it can't show which task uses "
    "which head; after the run, the figure of components and heads below does."
)


def build(context: Context, tab: gr.Tab, form: RecipeForm) -> gr.Button:
    """The run below the form; returns the button that leads to the next page."""
    controls = _Controls(form)
    picture = _Picture()
    following = action_button("Next: look inside A and B", "to-parameters", 240)
    _log(context)
    controls.wire(context, form)
    _watch(context, form, controls, picture)
    return following


class _Controls:
    """The buttons that start and end a run, the sentences on it, and its progress."""

    def __init__(self, form: RecipeForm) -> None:
        with form.actions, gr.Row():
            self.start = gr.Button("Start training", variant="primary", elem_id="start", scale=0, min_width=180)
            self.trial = action_button("Measure on a few steps", "estimate", 230)
            self.estimated = sentence("", elem_id="estimated")
        with gr.Row(elem_id="run-row"):
            self.status = sentence("", elem_id="status")
            self.stop = action_button("Stop", "stop", 96, visible=False, variant="stop")
            self.measure = action_button("Stop, then measure", "stop-measure", 190, visible=False)
            self.resume = action_button("Resume", "resume", 110, visible=False)
            self.sooner = action_button("Sooner", "sooner", 100, visible=False)
            self.later = action_button("Later", "later", 100, visible=False)
        self.bar = progress_bar("progress")
        self.details = sentence("", elem_id="details")

    def wire(self, context: Context, form: RecipeForm) -> None:
        self._wire_start(context, form)
        self._wire_run(context.services, context.run)
        self._wire_trial(context, form)

    def _wire_start(self, context: Context, form: RecipeForm) -> None:
        services = context.services

        @handler
        def begin(dataset_id: str, model: str, *inputs: Component) -> Updates:
            run_id = form_actions.start(services, dataset_id, model, values(form.fields, inputs))
            return {context.run: run_id, self.start: gr.Button(interactive=False), form.setup: gr.Accordion(open=False)}

        outputs = [context.run, self.start, form.setup]
        self.start.click(begin, form.inputs, outputs, api_visibility="private")

    def _wire_run(self, services: Services, run: gr.Textbox) -> None:
        """The buttons of an existing run."""

        @handler
        def resume(run_id: str) -> gr.Button:
            actions.resume(services, run_id)
            return gr.Button(visible=False)

        for button, measure in ((self.stop, False), (self.measure, True)):
            end = handler(partial(actions.stop, services, measure=measure))
            button.click(end, run, None, api_visibility="private")
        self.resume.click(resume, run, self.resume, api_visibility="private")
        for button, places in ((self.sooner, -1), (self.later, 1)):
            button.click(handler(partial(actions.swap, services, by=places)), run, None, **QUIET)

    def _wire_trial(self, context: Context, form: RecipeForm) -> None:
        """A trial of the form's settings; changing a setting ends it and removes its result."""

        @handler
        def estimate(dataset_id: str, model: str, *inputs: Component) -> Iterator[Updates]:
            for step in form_actions.estimate(context.services, dataset_id, model, values(form.fields, inputs)):
                yield {self.estimated: say(step)}

        trying = self.trial.click(estimate, form.inputs, self.estimated, **QUIET, trigger_mode="once")
        trying.failure(lambda: "", None, self.estimated, **QUIET)
        changes = [item.change for item in form.inputs]
        cancel_then(partial(context.signals.follow, changes), [trying], lambda: "", self.estimated)

    def words(self, words: actions.Words) -> Updates:
        details = " ".join(text for text in (words.usage, words.details) if text)
        return {self.status: say(words.status), self.bar: words.bar, self.details: say(details)}

    def buttons(self, buttons: actions.Buttons) -> Updates:
        return {
            self.start: gr.Button(interactive=True),
            self.stop: gr.Button(visible=buttons.active),
            self.measure: gr.Button(visible=buttons.active and not buttons.waiting),
            self.resume: gr.Button(visible=buttons.resumable),
            self.sooner: gr.Button(visible=buttons.waiting),
            self.later: gr.Button(visible=buttons.waiting),
        }


class _Picture:
    """A run's measurements and curves."""

    def __init__(self) -> None:
        with gr.Row(elem_id="outcome", visible=False) as self.outcome:
            self.table = _table(actions.COLUMNS, "results", "Held-out rows, before and after")
            self.use = plot_panel("use", "Mean gate of each head on each component", empty="This method has no heads.")
        with gr.Row(elem_id="curves-row", visible=False) as self.curves_row:
            self.loss = plot_panel("loss", "Loss over steps", empty="The loss is drawn here once training starts.")
            self.load = plot_panel(
                "load", "Mean gate of each head over steps", empty="The load of each head is drawn here."
            )
        self.samples = sample_answers("samples")
        with gr.Accordion("How to read this", open=False):
            sentence(HOW_TO_READ)
        with gr.Accordion("More curves", open=False), gr.Row():
            self.rates = plot_panel(
                "curves", "Learning rate, gradient norm and speed", empty="Drawn once training starts."
            )
            self.groups = plot_panel(
                "groups", "Held-out loss of each component", empty="Drawn at the first evaluation."
            )

    def curves(self, curves: actions.Curves) -> Updates:
        return {self.loss: curves.loss, self.load: curves.load, self.rates: curves.curves}

    def measured(self, measured: actions.Measured) -> Updates:
        return {
            self.outcome: gr.Row(visible=measured.whole),
            self.groups: measured.groups,
            self.table: measured.table,
            self.samples: measured.samples,
            self.use: measured.use,
        }


def _table(columns: list[str], elem_id: str, label: str) -> gr.Dataframe:
    return gr.Dataframe(headers=columns, wrap=True, interactive=False, elem_id=elem_id, label=label)


def _watch(context: Context, form: RecipeForm, controls: _Controls, picture: _Picture) -> None:
    """Check the run every second, and show its parts that changed.

    The check itself fills only states on the server: Gradio rebuilds each component among a listener's outputs, even a
    skipped one, and many pages check at once.
    """
    services, run = context.services, context.run
    parts: dict[str, tuple[Callable[[actions.TrainView], Updates], list[Component]]] = {
        "words": (lambda view: controls.words(view.words), [controls.status, controls.bar, controls.details]),
        "buttons": (
            lambda view: (
                controls.buttons(view.buttons)
                | {picture.curves_row: gr.Row(visible=bool(view.buttons.phase))}
                | ({} if view.buttons.phase else form.unfolded)
            ),
            [
                picture.curves_row,
                controls.start,
                controls.stop,
                controls.measure,
                controls.resume,
                controls.sooner,
                controls.later,
                form.setup,
            ],
        ),
        "curves": (lambda view: picture.curves(view.curves), [picture.loss, picture.load, picture.rates]),
        "measured": (
            lambda view: picture.measured(view.measured),
            [picture.outcome, picture.groups, picture.table, picture.samples, picture.use],
        ),
    }
    marks = {part: gr.State("") for part in parts}

    def look(run_id: str | None) -> Updates:
        try:
            newest = actions.view(services, run_id).marks
            return {marks[part]: newest[part] for part in parts}
        except HydraError as error:  # in the status line: a message every second would be too many
            return {marks["words"]: str(error)}

    def show(part: str, run_id: str | None) -> Updates:
        try:
            return parts[part][0](actions.view(services, run_id))
        except HydraError as error:
            return controls.words(actions.Words(str(error))) if part == "words" else gr.skip()

    outputs = list(marks.values())
    gr.Timer(POLL_SECONDS).tick(look, run, outputs, **QUIET)
    context.signals.follow([run.change, context.page.load], look, run, outputs)
    for part, (_, filled) in parts.items():
        context.signals.follow([marks[part].change], handler(partial(show, part)), run, filled)


def _log(context: Context) -> None:
    """The run's log, refreshed while it is open."""
    with gr.Accordion("Log", open=False, elem_id="log") as panel:
        search = gr.Textbox(label="Only lines that contain", max_lines=1, elem_id="log-search")
        lines = gr.Textbox(show_label=False, lines=12, max_lines=24, interactive=False, elem_id="log-lines")
    again = gr.Timer(LOG_SECONDS, active=False)
    services, run = context.services, context.run

    @handler
    def read(run_id: str | None, search: str) -> str:
        return actions.log(services, run_id, search)

    changes = [panel.expand, again.tick, search.change, run.change]
    context.signals.follow(changes, read, [run, search], lines)
    panel.expand(lambda: gr.Timer(active=True), None, again, **QUIET)
    panel.collapse(lambda: gr.Timer(active=False), None, again, **QUIET)
