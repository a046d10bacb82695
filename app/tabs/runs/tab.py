"""Runs: a table of all runs; one run labelled, exported, evaluated or deleted; several compared."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from hydralora.errors import RunError

from ...actions.run_choices import newest_run, run_choices
from ...actions.runs import files as file_actions
from ...actions.runs import listing as all_runs
from ...actions.runs import tab as actions
from ...page.buttons import action_button, upload_button
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler
from ...page.text import say, sentence
from ...widgets.copied_text import copied_text
from ...widgets.events import told_by
from ...widgets.run_list import run_list
from ..shell import choose_run
from .comparing import Comparing
from .files import RunFiles

LOOK_SECONDS = 2.0  # between looks at a run that works
Deleted = dict[str, object]  # the browser's record of the runs deleted in it; a request may hold anything


@dataclass(frozen=True)
class RunsTab:
    """Buttons that lead to other tabs: copy the settings, continue the training, look inside the run."""

    copy: gr.Button
    continue_training: gr.Button
    next: gr.Button


def build(context: Context, tab: gr.Tab, deleted: gr.BrowserState) -> RunsTab:
    """`deleted` holds {"runs": ids} of the runs deleted in this browser, the last one last."""
    runs = _AllRuns(context, deleted)
    chosen_run = _ChosenRun()
    comparing = Comparing()
    listing = runs.wire(tab, comparing)
    chosen_run.wire(context, tab)
    _change(context, runs, chosen_run, deleted, listing)
    comparing.wire(context, tab)
    return RunsTab(chosen_run.copy, chosen_run.continue_training, chosen_run.following)


class _AllRuns:
    """The list of all runs; importing a run, and restoring one."""

    def __init__(self, context: Context, deleted: gr.BrowserState) -> None:
        self._context, self._deleted = context, deleted
        self.table = run_list("runs-table")
        self.again = gr.Timer(LOOK_SECONDS, active=False)
        self.damaged = sentence("", elem_id="runs-damaged")
        with gr.Row():
            self.upload = upload_button("Import a run", "import-run", (".zip",), 180)
            self.undo = action_button("Undo delete", "undo-delete", 220, visible=False, size="sm")
            self.status = sentence("", elem_id="runs-told")

    def wire(self, tab: gr.Tab, comparing: Comparing) -> dict[str, Any]:
        """Returns the listener that lists the runs again."""
        services, run = self._context.services, self._context.run

        def list_runs(run_id: str | None, picked: list[str] | None, gone: Deleted) -> Updates:
            view = all_runs.listing(services)
            runs = run_choices(services)
            return {
                self.table: all_runs.list_value(view, run_id),
                self.again: gr.Timer(active=any(row.fraction is not None for row in view.rows)),
                self.damaged: say(" ".join(view.damaged.values())),
                comparing.chosen: comparing.choices(services, runs, picked or []),
                self.undo: gr.Button(visible=bool(actions.restorable(services, gone.get("runs")))),
            }

        @handler
        def choose(event: gr.EventData) -> Updates:
            run_id = actions.readable(services, str(told_by(event).get("id", "")))
            return choose_run(self._context, run_id)

        listing: dict[str, Any] = {
            "fn": list_runs,
            "inputs": [run, comparing.chosen, self._deleted],
            "outputs": [self.table, self.again, self.damaged, comparing.chosen, self.undo],
        }
        changes = [tab.select, run.change, self.again.tick]
        self._context.signals.follow(changes, listing["fn"], listing["inputs"], listing["outputs"])
        self.table.pick(choose, None, [run, self._context.dataset], **QUIET)
        return listing


class _ChosenRun:
    """The chosen run: its label, its files, its recipe."""

    def __init__(self) -> None:
        with gr.Accordion("This run", open=True, elem_id="one-run"):
            self.about = sentence("", elem_id="run-sentence")
            with gr.Row():
                self.name = gr.Textbox(label="Name", max_lines=1, max_length=60, elem_id="label-name", min_width=200)
                self.tags = gr.Textbox(
                    label="Tags",
                    info="Comma-separated.",
                    max_lines=1,
                    max_length=200,
                    elem_id="run-tags",
                    min_width=200,
                )
                self.note = gr.Textbox(
                    label="Note", max_lines=4, max_length=2000, elem_id="run-note", scale=2, min_width=280
                )
            with gr.Row():
                self.save = action_button("Save", "keep-label", 120)
                self.copy = action_button("Copy settings to form", "use-recipe", 240)
                self.continue_training = action_button("Continue training", "train-on", 200)
                self.following = action_button("Look inside A and B", "to-parameters-2", 200)
                self.delete = action_button("Delete", "delete-run", 120, variant="secondary")
            self.files = RunFiles()
            with gr.Accordion("Recipe and use in code", open=False):
                self.recipe = copied_text("Recipe: hydralora train RECIPE.yaml", "run-recipe")
                self.code = copied_text("Use in code", "run-code")
            self.looked_at = gr.State(None)  # the run whose files and measurements are shown

    @property
    def words(self) -> list[gr.Textbox]:
        return [self.name, self.note, self.tags]

    def wire(self, context: Context, tab: gr.Tab) -> None:
        services, run = context.services, context.run

        @handler
        def look(run_id: str | None, before: str | None) -> Updates:
            view = actions.view(services, run_id)
            # Text that is typed, but not saved yet, would be lost.
            words = {} if run_id == before else {self.name: view.name, self.note: view.note, self.tags: view.tags}
            known, able = gr.Button(interactive=bool(run_id)), gr.Button(interactive=view.has_adapter)
            buttons = {self.save: known, self.copy: known, self.delete: known}
            buttons |= {self.following: able, self.continue_training: able}
            texts = {self.about: say(view.sentence), self.recipe: view.recipe, self.code: view.code}
            files = self.files.updates(view.has_adapter, run_id != before)
            return texts | words | buttons | files | {self.looked_at: run_id}

        buttons = [self.save, self.copy, self.continue_training, self.delete, self.following]
        outputs = [self.looked_at, self.about, *self.words, self.recipe, self.code, *buttons, *self.files.outputs]
        context.signals.follow([tab.select, run.change], look, [run, self.looked_at], outputs)
        self.files.wire(services, run)


def _change(
    context: Context, runs: _AllRuns, chosen_run: _ChosenRun, deleted: gr.BrowserState, listing: dict[str, Any]
) -> None:
    """Save a run's label, delete it, restore it, import another; then all are listed again."""

    services, run = context.services, context.run

    @handler
    def save(run_id: str, name: str, note: str, tags: str) -> Updates:
        actions.label(services, run_id, name, note, tags)
        view = actions.view(services, run_id)
        gr.Info("Saved.")
        told = {chosen_run.about: say(view.sentence)}
        return told | {chosen_run.name: view.name, chosen_run.note: view.note, chosen_run.tags: view.tags}

    @handler
    def delete(run_id: str, shown: str | None, gone: Deleted) -> Updates:
        if run_id != shown:  # a click in a page that is late would delete another run than the one that is read
            raise RunError("Another run is being opened. Wait until it is shown, then delete it.")
        text = actions.delete(services, run_id)
        restorable = [*actions.restorable(services, gone.get("runs")), run_id]
        chosen = choose_run(context, newest_run(services) or "")
        return {runs.status: say(text), deleted: {"runs": restorable}} | chosen

    @handler
    def restore(gone: Deleted) -> Updates:
        run_id = actions.restore(services, gone.get("runs"))
        return _chosen(run_id, f"{run_id} is restored.")

    @handler
    def import_file(file: str, model: str) -> Updates:
        run_id = file_actions.import_file(services, file, model)
        return _chosen(run_id, f"{run_id} was imported.")

    def _chosen(run_id: str, text: str) -> Updates:
        return {runs.status: say(text)} | choose_run(context, run_id)

    outputs = [runs.status, run, context.dataset]
    for event in (
        chosen_run.save.click(save, [run, *chosen_run.words], [chosen_run.about, *chosen_run.words], **QUIET),
        chosen_run.delete.click(delete, [run, chosen_run.looked_at, deleted], [*outputs, deleted], **QUIET),
        runs.undo.click(restore, deleted, outputs, **QUIET),
        runs.upload.upload(import_file, [runs.upload, context.model], outputs, api_visibility="private"),
    ):
        event.success(**listing, **QUIET)
