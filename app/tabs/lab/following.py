"""A study that was begun: its verdict, its figure beside the paper's, and its table, which fills as runs end."""

import gradio as gr

from hydralora.errors import HydraError

from ...actions.lab import study as actions
from ...page.buttons import action_button
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler
from ...page.text import reading_help, say, sentence
from ...widgets.events import told_by
from ...widgets.lab import study_files, study_table
from ...widgets.plot import plot_panel
from ...widgets.progress import progress_bar
from ..shell import choose_run

POLL_SECONDS = 2.0
HOW_TO_READ = (
    "Each dot is one seed, a run of its own. A bar is the 95 % interval of an arm's mean over its seeds. Arms are "
    "paired: a seed has one split and one order of rows for all of them. So a difference can be clear although two "
    "bars overlap. The verdict goes by the paired difference; with one seed one can't tell. In the table, a dot leads "
    "to its run."
)


class Following:
    """The study that is open. `column` holds all of it."""

    def __init__(self, study: gr.Textbox) -> None:
        self._study = study
        self._marks = [gr.State(""), gr.State("")]  # of the words and the pictures, so that only changes are sent
        self._timer = gr.Timer(POLL_SECONDS, active=False)
        with gr.Column(visible=False, elem_id="lab-study") as self.column:
            with gr.Row(elem_id="lab-head"):
                self.back = action_button("‹ All studies", "lab-back", 130)
                self.title = sentence("", elem_id="lab-title")
                self.stop = action_button("Stop", "lab-stop", 96, variant="stop", visible=False)
                self.go_on = action_button("Go on", "lab-go-on", 110, visible=False)
                self.files = study_files("lab-files")
            self._draw_question()
            self.bar = progress_bar("lab-progress")
            self.status = sentence("", elem_id="lab-status")
            self.verdict = sentence("", elem_id="lab-verdict")
            with gr.Row(elem_id="lab-figures"):
                self.figure = plot_panel(
                    "lab-figure", "What each arm measured", empty="Drawn as soon as an arm was measured.", fills=True
                )
                self.paper = plot_panel("lab-paper", "What the paper found", caption="lab-differs", fills=True)
            self.differs = sentence("", elem_id="lab-differs")
            self.table = study_table("lab-table")
            self.failed = sentence("", elem_id="lab-failed")
            self.reading = reading_help(HOW_TO_READ, "lab-reading")
            with gr.Accordion("How each arm's setting was chosen", open=False, elem_id="lab-choice") as self.choice:
                self.tried = plot_panel("lab-tried", "What each tried value gave", empty="Nothing has been tried yet.")

    def _draw_question(self) -> None:
        with gr.Row(visible=False, elem_id="lab-really") as self.question:
            sentence("Stop all of this study's runs? What has finished is kept, and Go on continues.")
            self.yes = action_button("Stop them", "lab-stop-yes", 120, variant="stop", size="sm")
            self.no = action_button("Let it run", "lab-stop-no", 120, size="sm")

    def wire(self, context: Context) -> None:
        services, study = context.services, self._study
        self.back.click(lambda: "", None, study, **QUIET)
        self.stop.click(lambda: gr.Row(visible=True), None, self.question, **QUIET)
        self.no.click(lambda: gr.Row(visible=False), None, self.question, **QUIET)

        @handler
        def stop(study_id: str) -> Updates:
            actions.stop(services, study_id)
            return {self.question: gr.Row(visible=False), self.stop: gr.Button(visible=False)}

        @handler
        def go_on(study_id: str) -> Updates:
            actions.go_on(services, study_id)
            return {self.go_on: gr.Button(visible=False), self._timer: gr.Timer(active=True)}

        @handler
        def choose(event: gr.EventData) -> Updates:
            return choose_run(context, services.run(str(told_by(event).get("id", ""))).id)

        self.yes.click(stop, study, [self.question, self.stop], **QUIET)
        self.go_on.click(go_on, study, [self.go_on, self._timer], **QUIET)
        self.table.pick(choose, None, [context.run, context.dataset], **QUIET)
        self._watch(context)

    def _watch(self, context: Context) -> None:
        """Look at the study, and show of it what has changed."""
        services, study = context.services, self._study
        words_mark, pictures_mark = self._marks

        def look(study_id: str) -> Updates:
            try:
                return dict(zip(self._marks, actions.view(services, study_id).marks, strict=True))
            except HydraError as error:  # in the status line: a message every two seconds would be too many
                return {words_mark: str(error)}

        @handler
        def show_words(study_id: str) -> Updates:
            try:
                return self._words(actions.view(services, study_id))
            except HydraError as error:
                return {self.status: say(str(error)), self._timer: gr.Timer(active=False)}

        @handler
        def show_pictures(study_id: str) -> Updates:
            pictures = actions.view(services, study_id).pictures
            return {
                self.figure: pictures.measured,
                self.paper: gr.HTML(value=pictures.paper, visible=bool(pictures.paper)),
                self.differs: say(pictures.differs),
                self.tried: pictures.tried,
                self.choice: gr.Accordion(visible=bool(pictures.tried)),
            }

        self._timer.tick(look, study, self._marks, **QUIET)
        context.signals.follow([study.change], look, study, self._marks)
        words: list[Component] = [self.title, self.stop, self.go_on, self.files, self.bar, self.status, self.verdict]
        words += [self.table, self.failed, self._timer]
        context.signals.follow([words_mark.change], show_words, study, words)
        pictures = [self.figure, self.paper, self.differs, self.tried, self.choice]
        context.signals.follow([pictures_mark.change], show_pictures, study, pictures)

    def _words(self, view: actions.StudyView) -> Updates:
        words = view.words
        return {
            self.title: say(f"{view.title}{'' if view.title.endswith('?') else ':'} {view.question}")
            if view.id
            else "",
            self.stop: gr.Button(visible=words.going > 0),
            self.go_on: gr.Button(visible=words.resumable),
            self.files: view.id if words.table else "",
            self.bar: words.bar,
            self.status: say(words.status),
            self.verdict: say(words.verdict),
            self.table: words.table,
            self.failed: say(words.failed),
            self._timer: gr.Timer(active=bool(view.id) and not words.ended),
        }
