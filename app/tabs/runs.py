"""Runs: all of them in a table; one named, measured, given away or deleted; several compared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.actions import runs as actions
from app.actions.background import Done
from app.components.plot import plot_panel
from app.services import Services
from app.tabs.messages import LATEST, QUIET, say, sentence, shown, shown_stream
from hydralora.data.sources import SUFFIXES


@dataclass(frozen=True)
class RunsTab:
    again: gr.Button
    next: gr.Button


def build(services: Services, run: gr.Dropdown, tab: gr.Tab, model: gr.Dropdown) -> RunsTab:
    sentence("Click a run to look at it, here and in the other tabs. Columns can be sorted and filtered.")
    table = gr.Dataframe(
        headers=list(actions.COLUMNS),
        datatype=list(actions.COLUMNS.values()),
        column_widths=[f"{width}px" for width in (170, 120, 95, 110, 50, 60, 120, 150, 80, 95, 90, 100)],  # scrolls
        wrap=True,
        interactive=False,
        show_search="filter",
        max_height=360,
        elem_id="runs-table",
        label="Runs, newest first",
    )
    with gr.Row():
        bring = gr.UploadButton(
            "Import a run",
            file_types=[".zip"],
            type="filepath",
            elem_id="import-run",
            size="sm",
            scale=0,
            min_width=180,
        )
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
            following = gr.Button("Look inside A and B", elem_id="to-parameters-2", size="md", scale=0, min_width=200)
            remove = gr.Button("Delete", variant="stop", elem_id="delete-run", size="md", scale=0, min_width=120)
        files, update_files = _giving(services, run)
        with gr.Accordion("Its recipe, and its use in code", open=False):
            recipe = gr.Code(language="yaml", label="Recipe: hydralora train RECIPE.yaml", elem_id="run-recipe")
            code = gr.Code(language="python", label="Use in code", elem_id="run-code")

    chosen, compared = _comparing(services)

    looked_at = gr.State(None)  # the run whose files and measurements are shown

    @shown
    def look(run_id: str | None, before: str | None) -> dict[Any, Any]:
        seen = actions.view(services, run_id)
        known = gr.Button(interactive=bool(run_id))
        return {
            about: say(seen.sentence),
            name: seen.name,
            note: seen.note,
            tags: seen.tags,
            recipe: seen.recipe,
            code: seen.code,
            keep: known,
            again: known,
            remove: known,
            following: gr.Button(interactive=seen.has_adapter),
            **update_files(seen.has_adapter, run_id != before),
            looked_at: run_id,
        }

    def listed() -> tuple:
        runs = actions.choices(services)
        return actions.table(services), gr.Dropdown(choices=runs), gr.Button(visible=bool(services.store.deleted()))

    looked: dict[str, Any] = {
        "fn": look,
        "inputs": [run, looked_at],
        "outputs": [looked_at, about, name, note, tags, recipe, code, keep, again, remove, following, *files],
    }
    listing: dict[str, Any] = {"fn": listed, "inputs": None, "outputs": [table, chosen, undo]}

    @shown
    def write(run_id: str, *words: str) -> None:
        actions.label(services, run_id, *words)

    @shown
    def delete(run_id: str) -> tuple:
        said = actions.delete(services, run_id)
        runs = actions.run_choices(services)
        return say(said), gr.Dropdown(choices=runs, value=runs[0][1] if runs else None)

    @shown
    def restore() -> tuple:
        run_id = actions.restore(services)
        return say(f"{run_id} is back."), gr.Dropdown(choices=actions.run_choices(services), value=run_id)

    @shown
    def take(file: str, model: str) -> tuple:
        run_id = actions.take(services, file, model)
        return say(f"{run_id} was imported."), gr.Dropdown(choices=actions.run_choices(services), value=run_id)

    def choose(event: gr.SelectData) -> str:
        return str(event.row_value[0])

    gr.on([tab.select, run.change], **looked, **LATEST)
    gr.on([tab.select, run.change], **listing, **LATEST)
    table.select(choose, None, run, **QUIET)
    keep.click(write, [run, name, note, tags], None, **QUIET).success(**listing, **QUIET).success(**looked, **QUIET)
    remove.click(delete, run, [told, run], **QUIET).success(**listing, **QUIET)
    undo.click(restore, None, [told, run], **QUIET).success(**listing, **QUIET)
    bring.upload(take, [bring, model], [told, run], api_visibility="private").success(**listing, **QUIET)
    compared(tab)
    return RunsTab(again, following)


def _giving(services: Services, run: gr.Dropdown) -> tuple[list[Any], Any]:
    """Buttons that write the run into a file, measure it on one, or let it answer one."""
    with gr.Row():
        form = gr.Dropdown(
            list(actions.FORMATS.items()), value="adapter", label="Export", elem_id="export-format", min_width=280
        )
        write = gr.Button("Write the file", elem_id="export", size="md", scale=0, min_width=160)
        download = gr.DownloadButton(
            "Download", visible=False, elem_id="export-file", size="md", scale=0, min_width=160
        )
    with gr.Row():
        kinds: dict[str, Any] = {"file_types": list(SUFFIXES), "type": "filepath", "size": "md", "scale": 0}
        measure = gr.UploadButton("Evaluate on a file", elem_id="evaluate-file", min_width=200, **kinds)
        ask = gr.UploadButton("Answer a file's rows", elem_id="answer-file", min_width=200, **kinds)
        answers = gr.DownloadButton(
            "Download the answers", visible=False, elem_id="answers-file", size="md", scale=0, min_width=200
        )
        stop = gr.Button("Stop", visible=False, elem_id="stop-file", size="md", scale=0, min_width=100)
    told = sentence("", elem_id="export-told")
    scores = gr.Dataframe(
        headers=actions.SCORE_COLUMNS,
        wrap=True,
        interactive=False,
        visible=False,
        elem_id="scores",
        label="On that file",
    )

    def follow(steps: Iterator[Any], show: Callable[[Any], dict[Any, Any]]) -> Iterator[dict[Any, Any]]:
        for step in steps:
            if isinstance(step, Done):
                sentence, result = step.value
                yield {told: say(sentence), stop: gr.Button(visible=False), **show(result)}
            else:
                yield {told: say(step), stop: gr.Button(visible=True)}

    @shown_stream
    def export(run_id: str, form: str) -> Iterator[dict]:
        steps = actions.export(services, run_id, form)
        yield from follow(steps, lambda path: {download: gr.DownloadButton(value=path, visible=True)})

    @shown_stream
    def evaluate(run_id: str, file: str) -> Iterator[dict]:
        steps = actions.evaluate(services, run_id, file)
        yield from follow(steps, lambda rows: {scores: gr.Dataframe(value=rows, visible=True)})

    @shown_stream
    def answer(run_id: str, file: str) -> Iterator[dict]:
        steps = actions.answers(services, run_id, file)
        yield from follow(steps, lambda path: {answers: gr.DownloadButton(value=path, visible=True)})

    going: list[Any] = [
        write.click(export, [run, form], [told, download, stop], **QUIET),
        measure.upload(evaluate, [run, measure], [told, scores, stop], **QUIET),
        ask.upload(answer, [run, ask], [told, answers, stop], **QUIET),
    ]
    for event in going:
        event.failure(lambda: ("", gr.Button(visible=False)), None, [told, stop], **QUIET)
    stop.click(lambda: (say("Stopped."), gr.Button(visible=False)), None, [told, stop], cancels=going, **QUIET)

    def update(has_adapter: bool, another: bool) -> dict[Any, Any]:
        """What becomes of the buttons, and where `another` run is looked at, of what was made of the one before."""
        able = {button: type(button)(interactive=has_adapter) for button in (write, measure, ask)}
        if not another:
            return able
        made = {made: type(made)(visible=False) for made in (download, answers, scores)}
        return able | made | {told: ""}

    return [write, measure, ask, download, answers, told, scores], update


def _comparing(services: Services) -> tuple[gr.Dropdown, Any]:
    with gr.Accordion("Compare runs", open=True, elem_id="comparing"):
        chosen = gr.Dropdown([], value=[], multiselect=True, label="Runs to compare", elem_id="compared")
        told = sentence("", elem_id="compare-sentence")
        figure = plot_panel("compare-loss", "Loss of several runs", empty="Choose two runs or more.")
        results = gr.Dataframe(
            wrap=True, interactive=False, visible=False, elem_id="compare-results", label="Held-out rows, side by side"
        )
        differences = gr.Dataframe(
            wrap=True, interactive=False, visible=False, elem_id="compare-settings", label="Settings that differ"
        )

    @shown
    def compare(run_ids: list[str]) -> tuple:
        seen = actions.comparison(services, run_ids or [])
        names = ["setting", *seen.headers[2:]]
        return (
            say(seen.sentence),
            seen.figure,
            gr.Dataframe(value={"headers": seen.headers, "data": seen.rows}, visible=bool(seen.rows)),
            gr.Dataframe(value={"headers": names, "data": seen.differences}, visible=bool(seen.differences)),
        )

    def wire(tab: gr.Tab) -> None:
        gr.on([tab.select, chosen.change], compare, chosen, [told, figure, results, differences], **LATEST)

    return chosen, wire
