"""Runs: all of them in a table; one named, measured, given away or deleted; several compared."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...actions.runs import comparing as compared_runs
from ...actions.runs import table as actions
from ...actions.train.run import run_choices
from ...page.buttons import upload_button
from ...page.text import LATEST, QUIET, say, sentence, shown
from ...services import Services
from . import comparing
from . import files as run_files

Offered = list[tuple[str, str]] | None  # (label, id) of the runs to choose from; None: nothing was told yet
Gone = dict[str, list[str]]  # what the browser keeps of the runs that were deleted in it


@dataclass(frozen=True)
class RunsTab:
    again: gr.Button
    on: gr.Button
    next: gr.Button


def build(services: Services, run: gr.Dropdown, tab: gr.Tab, model: gr.Dropdown, deleted: gr.BrowserState) -> RunsTab:
    """`deleted` holds {"runs": ids} of those that were deleted in this browser, the last one last."""
    sentence("Click a run to look at it, here and in the other tabs. Columns can be sorted and filtered.")
    table = gr.Dataframe(
        headers=list(actions.COLUMNS),
        datatype=[kind for kind, _ in actions.COLUMNS.values()],
        column_widths=[f"{width}px" for _, width in actions.COLUMNS.values()],  # it scrolls
        wrap=True,
        interactive=False,
        show_search="filter",
        max_height=360,
        elem_id="runs-table",
        label="Runs, newest first",
    )
    damaged = sentence("", elem_id="runs-damaged")
    with gr.Row():
        bring = upload_button("Import a run", "import-run", (".zip",), 180)
        undo = gr.Button(
            "Bring back the last deleted", visible=False, elem_id="undo-delete", size="sm", scale=0, min_width=220
        )
        told = sentence("", elem_id="runs-told")

    with gr.Accordion("This run", open=True, elem_id="one-run"):
        about = sentence("", elem_id="run-sentence")
        with gr.Row():
            name = gr.Textbox(label="Its name", max_lines=1, max_length=60, elem_id="run-name", min_width=200)
            tags = gr.Textbox(
                label="Tags",
                info="With commas between.",
                max_lines=1,
                max_length=200,
                elem_id="run-tags",
                min_width=200,
            )
            note = gr.Textbox(label="Note", max_lines=4, max_length=2000, elem_id="run-note", scale=2, min_width=280)
        with gr.Row():
            keep = gr.Button("Keep these words", elem_id="keep-label", size="md", scale=0, min_width=180)
            again = gr.Button("Its settings into the form", elem_id="use-recipe", size="md", scale=0, min_width=260)
            on = gr.Button("Train on from it", elem_id="train-on", size="md", scale=0, min_width=180)
            following = gr.Button("Look inside A and B", elem_id="to-parameters-2", size="md", scale=0, min_width=200)
            remove = gr.Button("Delete", variant="stop", elem_id="delete-run", size="md", scale=0, min_width=120)
        files, update_files = run_files.build(services, run)
        with gr.Accordion("Its recipe, and its use in code", open=False):
            recipe = gr.Code(language="yaml", label="Recipe: hydralora train RECIPE.yaml", elem_id="run-recipe")
            code = gr.Code(language="python", label="Use in code", elem_id="run-code")

    chosen, compared = comparing.build(services)

    looked_at = gr.State(None)  # the run whose files and measurements are shown
    offered = gr.State(None)  # the runs to choose from, as they were told to the page last

    @shown
    def look(run_id: str | None, before: str | None) -> dict[Any, Any]:
        seen = actions.view(services, run_id)
        known = gr.Button(interactive=bool(run_id))
        words = {name: seen.name, note: seen.note, tags: seen.tags}
        return {
            about: say(seen.sentence),
            **(words if run_id != before else {}),  # else what is typed, and not kept yet, would be lost
            recipe: seen.recipe,
            code: seen.code,
            keep: known,
            again: known,
            remove: known,
            following: gr.Button(interactive=seen.has_adapter),
            on: gr.Button(interactive=seen.has_adapter),
            **update_files(seen.has_adapter, run_id != before),
            looked_at: run_id,
        }

    def offer(run_id: str | None, before: Offered) -> tuple:
        runs = run_choices(services)
        return _offered(runs, run_id, before), runs

    def listed(run_id: str | None, before: Offered, picked: list[str] | None, gone: Gone) -> dict[Any, Any]:
        again, runs = offer(run_id, before)
        seen = actions.listing(services)
        return {
            table: seen.rows,
            damaged: say(" ".join(seen.damaged.values())),
            run: again,
            offered: runs,
            chosen: _comparable(compared_runs.choices(services, runs), picked or []),
            undo: gr.Button(visible=bool(actions.restorable(services, gone.get("runs", [])))),
        }

    looked: dict[str, Any] = {
        "fn": look,
        "inputs": [run, looked_at],
        "outputs": [looked_at, about, name, note, tags, recipe, code, keep, again, on, remove, following, *files],
    }
    listing: dict[str, Any] = {
        "fn": listed,
        "inputs": [run, offered, chosen, deleted],
        "outputs": [table, damaged, run, offered, chosen, undo],
    }

    @shown
    def write(run_id: str, *words: str) -> tuple:
        actions.label(services, run_id, *words)
        seen = actions.view(services, run_id)
        return seen.name, seen.note, seen.tags

    @shown
    def delete(run_id: str, gone: Gone) -> tuple:
        said = actions.delete(services, run_id)
        runs = run_choices(services)
        mine = actions.restorable(services, [*gone.get("runs", []), run_id])
        return say(said), gr.Dropdown(choices=runs, value=runs[0][1] if runs else None), {"runs": mine}

    @shown
    def restore(gone: Gone) -> tuple:
        run_id = actions.restore(services, gone.get("runs", []))
        return say(f"{run_id} is back."), gr.Dropdown(choices=run_choices(services), value=run_id)

    @shown
    def take(file: str, model: str) -> tuple:
        run_id = actions.take(services, file, model)
        return say(f"{run_id} was imported."), gr.Dropdown(choices=run_choices(services), value=run_id)

    @shown
    def choose(event: gr.SelectData) -> gr.Dropdown:
        run_id = actions.readable(services, str(event.row_value[0]))
        return gr.Dropdown(choices=run_choices(services), value=run_id)

    gr.on([tab.select, run.change], **looked, **LATEST)
    gr.on([tab.select, run.change], **listing, **LATEST)
    table.select(choose, None, run, **QUIET)
    run.focus(offer, [run, offered], [run, offered], **QUIET)
    words = [name, note, tags]
    keep.click(write, [run, *words], words, **QUIET).success(**listing, **QUIET)
    remove.click(delete, [run, deleted], [told, run, deleted], **QUIET).success(**listing, **QUIET)
    undo.click(restore, deleted, [told, run], **QUIET).success(**listing, **QUIET)
    bring.upload(take, [bring, model], [told, run], api_visibility="private").success(**listing, **QUIET)
    compared(tab)
    return RunsTab(again, on, following)


def _offered(runs: list[tuple[str, str]], run_id: str | None, before: Offered) -> Any:
    """The runs to choose from, which may come and go elsewhere: sent only where they are others than before. The choice
    stays, unless its run is gone: a choice of what is not offered would be refused in every tab."""
    if run_id and run_id not in {value for _, value in runs}:
        return gr.Dropdown(choices=runs, value=None)
    return gr.skip() if runs == before else gr.Dropdown(choices=runs)


def _comparable(runs: list[tuple[str, str]], chosen: list[str]) -> gr.Dropdown:
    """The runs to compare; those that are gone are chosen no more."""
    known = [one for one in chosen if one in {value for _, value in runs}]
    return gr.Dropdown(choices=runs) if known == chosen else gr.Dropdown(choices=runs, value=known)
