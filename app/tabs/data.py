"""Data: upload files or take the demo; look at the rows, at what is wrong with some, and at what the model reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hydralora.data.mapping import Mapping
from hydralora.data.sources import SUFFIXES
from hydralora.data.store import DEMO

from ..actions import data as actions
from ..page.buttons import upload_button
from ..page.forms import Widget
from ..page.text import QUIET, say, sentence, shown, shown_stream
from ..services import Services
from ..services.background import Done
from ..widgets.batch import batch_view
from ..widgets.plot import plot_panel

LABELS = {
    "question": "Question",
    "context": "Context",
    "answer": "Answer",
    "messages": "Conversation",
    "text": "Plain text",
}


@dataclass(frozen=True)
class DataTab:
    next: gr.Button


def build(
    services: Services,
    dataset: gr.Dropdown,
    page: gr.Blocks,
    model: gr.Dropdown,
    max_length: Widget,
) -> DataTab:
    with gr.Row():
        upload = upload_button("Upload a dataset", "upload", SUFFIXES, 200, file_count="multiple", size="lg")
        sentence(
            "JSONL, JSON, CSV, TSV, Parquet or text, also gzipped; several files are one dataset. Columns are found by "
            "their names, or named by you. Or stay with the demo: reversing lists, extracting JSON, adding numbers and "
            "routing messages.",
            elem_id="hint",
        )
        named = gr.Textbox(
            label="Or a dataset of the Hugging Face Hub",
            placeholder="owner/name:config@split",
            submit_btn="Fetch",
            max_lines=1,
            min_width=340,
            elem_id="hub-name",
        )
        stop = gr.Button("Stop reading", visible=False, elem_id="stop-reading", scale=0, min_width=140)
    status = sentence("", elem_id="reading")
    summary = sentence("", elem_id="data-summary")
    wrong = sentence("", elem_id="problems-sentence")
    problems = gr.Dataframe(
        headers=actions.PROBLEM_COLUMNS,
        column_widths=["14%", "16%", "35%", "35%"],
        wrap=True,
        interactive=False,
        max_height=300,
        visible=False,
        elem_id="problems",
        label="Rows that are left out",
    )
    with gr.Row():
        report = gr.DownloadButton(
            "Download all problems (CSV)", visible=False, elem_id="problems-csv", size="sm", scale=0, min_width=240
        )
    pending = gr.State([])  # uploaded files whose columns nobody knows yet
    with gr.Accordion("Columns: which holds what", open=False, elem_id="columns") as columns:
        with gr.Row():
            fields = [
                gr.Dropdown(
                    [actions.NONE],
                    value=actions.NONE,
                    label=LABELS.get(name, name.capitalize()),
                    info=info.description,
                    min_width=200,
                    elem_id=f"column-{name}",
                )
                for name, info in Mapping.model_fields.items()
            ]
        with gr.Row():
            apply = gr.Button("Read by these columns", elem_id="apply-columns", size="md", scale=0, min_width=240)
            mapping_file = gr.DownloadButton(
                "Download this mapping", elem_id="mapping-file", size="md", scale=0, min_width=240
            )
    _files(services, dataset)
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        column_widths=actions.WIDTHS,
        wrap=True,
        interactive=False,
        max_height=480,
        elem_id="data-table",
        label="Rows",
    )
    as_read = _as_the_model_reads_it(services, dataset, model, max_length)
    following = gr.Button("Next: see its components", variant="primary", elem_id="to-clusters")

    @shown
    def show(dataset_id: str) -> tuple:
        view = actions.view(services, dataset_id)
        some = bool(view.problem_table)
        return (
            say(view.summary),
            say(view.problems),
            gr.Dataframe(value=view.problem_table, visible=some),
            gr.DownloadButton(value=actions.problems_file(services, dataset_id) if some else None, visible=some),
            gr.DownloadButton(value=actions.mapping_file(services, dataset_id)),
            view.table,
            [],
            *_columns(view.columns, view.mapping),
        )

    def follow(steps: Iterator[Any]) -> Iterator[tuple]:
        """What to show while files are read: status, stop, dataset, pending files, accordion, columns."""
        unchanged = [gr.skip() for _ in fields]
        try:
            for step in steps:
                if isinstance(step, str):
                    yield say(step), gr.Button(visible=True), gr.skip(), gr.skip(), gr.skip(), *unchanged
                elif isinstance(step, Done):
                    chosen = gr.Dropdown(choices=actions.choices(services), value=step.value)
                    yield "", gr.Button(visible=False), chosen, [], gr.Accordion(open=False), *unchanged
                else:
                    told = f"{step.message} Or say below which column holds what."
                    known = _columns(step.columns, {})
                    yield say(told), gr.Button(visible=False), gr.skip(), step.files, gr.Accordion(open=True), *known
        except Exception:
            yield "", gr.Button(visible=False), gr.skip(), gr.skip(), gr.skip(), *unchanged
            raise

    @shown_stream
    def keep(files: list[str]) -> Iterator[tuple]:
        yield from follow(actions.upload(services, files))

    @shown_stream
    def fetch(name: str) -> Iterator[tuple]:
        yield from follow(actions.fetch(services, name))

    @shown_stream
    def remap(dataset_id: str, files: list[str], *chosen: str) -> Iterator[tuple]:
        mapping = dict(zip(actions.FIELDS, (value or actions.NONE for value in chosen), strict=True))
        steps = actions.upload(services, files, mapping) if files else actions.remap(services, dataset_id, mapping)
        yield from follow(steps)

    outputs = [status, stop, dataset, pending, columns, *fields]
    uploading = upload.upload(keep, upload, outputs, **QUIET)
    fetching = named.submit(fetch, named, outputs, **QUIET)
    mapping = apply.click(remap, [dataset, pending, *fields], outputs, **QUIET)
    stop.click(
        lambda: (say("Stopped; nothing was kept."), gr.Button(visible=False)),
        None,
        [status, stop],
        cancels=[uploading, fetching, mapping],
        **QUIET,
    )
    viewed = gr.on(
        [dataset.change, page.load],
        show,
        dataset,
        [summary, wrong, problems, report, mapping_file, table, pending, *fields],
        api_visibility="private",
    )
    viewed.success(**as_read, api_visibility="private")
    gr.on([model.change, max_length.change], **as_read, trigger_mode="always_last", api_visibility="private")
    return DataTab(following)


def _files(services: Services, dataset: gr.Dropdown) -> None:
    """Buttons that give the dataset a second file to measure on, and that remove it."""
    with gr.Row():
        heldout = upload_button("Upload held-out rows", "upload-heldout", SUFFIXES, 220)
        remove = gr.Button(
            "Remove this dataset", interactive=False, elem_id="remove", size="sm", scale=0, min_width=220
        )
        sentence("Held-out rows: a second file to measure on, in place of a share of these rows.")

    @shown
    def hold_out(dataset_id: str, file: str) -> gr.Dropdown:
        chosen = actions.hold_out(services, dataset_id, file)
        return gr.Dropdown(choices=actions.choices(services), value=chosen)

    heldout.upload(hold_out, [dataset, heldout], dataset, api_visibility="private")
    _removal(services, dataset, remove)


def _removal(services: Services, dataset: gr.Dropdown, remove: gr.Button) -> None:
    """Removes the dataset, once a person was asked."""
    with gr.Row(visible=False, elem_id="really-remove") as asking:
        sentence("Remove the dataset's files from this workspace? Runs that were trained on it keep their results.")
        yes = gr.Button("Remove", variant="stop", elem_id="remove-yes", size="sm", scale=0, min_width=120)
        no = gr.Button("Keep", elem_id="remove-no", size="sm", scale=0, min_width=120)

    @shown
    def go(dataset_id: str) -> tuple:
        actions.remove(services, dataset_id)
        return gr.Dropdown(choices=actions.choices(services), value=DEMO), gr.Row(visible=False)

    remove.click(lambda: gr.Row(visible=True), None, asking, **QUIET)
    no.click(lambda: gr.Row(visible=False), None, asking, **QUIET)
    yes.click(go, dataset, [dataset, asking], **QUIET)
    dataset.change(
        lambda dataset_id: (gr.Button(interactive=dataset_id != DEMO), gr.Row(visible=False)),
        dataset,
        [remove, asking],
        **QUIET,
    )


def _as_the_model_reads_it(
    services: Services, dataset: gr.Dropdown, model: gr.Dropdown, max_length: Widget
) -> dict[str, Any]:
    """Draw lengths and a first batch; returns the listener that fills them."""
    with gr.Accordion("As the model reads it", open=True):
        counted = sentence("", elem_id="tokens-sentence")
        lengths = plot_panel("lengths", "Rows by their length in tokens")
        reading = sentence("", elem_id="batch-sentence")
        batch = batch_view("batch")

    @shown
    def read(dataset_id: str, model: str, max_length: float) -> tuple:
        view = actions.tokens(services, dataset_id, model, int(max_length))
        return say(view.sentence), view.lengths, say(view.batch_sentence), view.batch

    return {
        "fn": read,
        "inputs": [dataset, model, max_length],
        "outputs": [counted, lengths, reading, batch],
    }


def _columns(columns: list[str], mapping: dict[str, str]) -> list[gr.Dropdown]:
    """The dropdowns of a mapping's fields, over these columns."""
    choices = [("(none)", actions.NONE), *((name, name) for name in columns)]
    return [gr.Dropdown(choices=choices, value=mapping.get(name, actions.NONE)) for name in actions.FIELDS]
