"""Data: upload files or use the demo; see the rows, their problems, and what the model reads."""

from collections.abc import Callable, Iterator, Sequence

import gradio as gr

from hydralora.data.mapping import Mapping
from hydralora.data.sources import FORMATS, SUFFIXES
from hydralora.data.store import DEMO
from hydralora.errors import HydraError

from ..actions import as_read
from ..actions import data as actions
from ..actions.reading import ROW_COLUMNS, ROW_WIDTHS
from ..page.buttons import action_button, download_button, upload_button
from ..page.context import Context
from ..page.handlers import QUIET, Updates, cancel_then, handler
from ..page.text import say, sentence
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
    "label": "Good or bad",
    "encoding": "Encoding of the text",
}
MARK_CHOICES = [("By its name and values", actions.NONE), ("None: every row is learnt", actions.OFF)]
ENCODING_CHOICES = [("By the first bytes", actions.NONE), *((name, name) for name in actions.ENCODINGS)]


def build(context: Context) -> gr.Button:
    """The tab; returns the button that leads to the next one."""
    services, dataset = context.services, context.dataset
    sources = _Sources()
    rows = _Rows()
    columns = _Columns()
    _files(context)
    rows.draw_table()
    as_read = _AsTheModelReadsIt(context)
    following = gr.Button("Next: components", variant="primary", elem_id="to-clusters")

    @handler
    def show(dataset_id: str) -> Updates:
        view = actions.view(services, dataset_id)
        mapping_file = gr.DownloadButton(value=actions.mapping_file(services, dataset_id))
        column_updates = columns.updates(view.columns, view.mapping) | {columns.file: mapping_file, columns.pending: []}
        return rows.updates(services, dataset_id, view) | column_updates

    outputs = [*rows.outputs, columns.file, columns.pending, *columns.fields.values()]
    opened = [dataset.change, context.page.load]
    viewed = context.signals.follow(opened, show, dataset, outputs, show_progress="full")
    as_read.wire(viewed)
    sources.wire(context, columns)
    return following


KEPT = "Nothing was added: the dataset below is the one that was there before."


class _Sources:
    """Where a dataset comes from: files, or the Hugging Face Hub."""

    def __init__(self) -> None:
        with gr.Row():
            self.upload = upload_button("Upload a dataset", "upload", SUFFIXES, 200, file_count="multiple", size="lg")
            sentence(
                f"{', '.join(item.name for item in FORMATS.values())}, also gzipped. Several files are one dataset. "
                "Columns are found by their names, or mapped by you. The demo has four skills: reversing lists, "
                "extracting JSON, adding numbers, routing messages.",
                elem_id="hint",
            )
            self.hub_name = gr.Textbox(
                label="Or a dataset of the Hugging Face Hub",
                placeholder="owner/name:config@split",
                submit_btn="Fetch",
                max_lines=1,
                min_width=340,
                elem_id="hub-name",
            )
            self.stop = action_button("Stop reading", "stop-reading", 140, visible=False)
        self.status = sentence("", elem_id="reading")

    def wire(self, context: Context, columns: "_Columns") -> None:
        services = context.services

        @handler
        def keep(files: list[str]) -> Iterator[Updates]:
            yield from self._follow(context, columns, actions.upload(services, files))

        @handler
        def fetch(name: str) -> Iterator[Updates]:
            yield from self._follow(context, columns, actions.fetch(services, name))

        @handler
        def remap(dataset_id: str, files: list[str], *chosen: str) -> Iterator[Updates]:
            mapping = dict(zip(columns.fields, (value or actions.NONE for value in chosen), strict=True))
            steps = actions.upload(services, files, mapping) if files else actions.remap(services, dataset_id, mapping)
            yield from self._follow(context, columns, steps)

        fields = list(columns.fields.values())
        outputs = [self.status, self.stop, context.dataset, columns.pending, columns.panel, *fields]
        uploading = self.upload.upload(keep, self.upload, outputs, **QUIET)
        fetching = self.hub_name.submit(fetch, self.hub_name, outputs, **QUIET)
        mapping = columns.apply.click(remap, [context.dataset, columns.pending, *fields], outputs, **QUIET)
        cancel_then(
            self.stop.click,
            [uploading, fetching, mapping],
            lambda: {self.status: say("Stopped. Nothing was kept."), self.stop: gr.Button(visible=False)},
            [self.status, self.stop],
        )

    def _follow(
        self, context: Context, columns: "_Columns", steps: Iterator[str | actions.NeedsMapping | Done[str]]
    ) -> Iterator[Updates]:
        """The updates while files are read."""
        ended: Updates = {self.status: "", self.stop: gr.Button(visible=False)}
        try:
            for step in steps:
                if isinstance(step, str):
                    yield {self.status: say(step), self.stop: gr.Button(visible=True)}
                elif isinstance(step, Done):
                    closed = gr.Accordion(open=False)
                    yield ended | {context.dataset: step.value, columns.pending: [], columns.panel: closed}
                else:
                    question = say(f"{step.message} Or map the columns below.")
                    waiting = {columns.pending: step.files, columns.panel: gr.Accordion(open=True)}
                    yield ended | {self.status: question} | waiting | columns.updates(step.columns, {})
        except HydraError as error:  # it stays until another file is read
            yield ended | {self.status: say(f"{error} {KEPT}")}
        except Exception:
            yield ended
            raise


class _Rows:
    """The rows of the dataset, and their problems."""

    def __init__(self) -> None:
        self.summary = sentence("", elem_id="data-summary")
        self.problems = sentence("", elem_id="problems-sentence")
        self.problem_table = gr.Dataframe(
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
            self.report = download_button("Download all problems (CSV)", "problems-csv", 240, visible=False, size="sm")
        self.table = gr.Dataframe(
            headers=ROW_COLUMNS,
            column_widths=ROW_WIDTHS,
            wrap=True,
            interactive=False,
            max_height=480,
            elem_id="data-table",
            label="Rows",
            render=False,
        )

    def draw_table(self) -> None:
        """Draw the rows, below the choice of their columns."""
        self.table.render()

    @property
    def outputs(self) -> list[gr.HTML | gr.Dataframe | gr.DownloadButton]:
        return [self.summary, self.problems, self.problem_table, self.report, self.table]

    def updates(self, services: Services, dataset_id: str, view: actions.DataView) -> Updates:
        some = bool(view.problem_table)
        report = actions.problems_file(services, dataset_id) if some else None
        return {
            self.summary: say(view.summary),
            self.problems: say(view.problems),
            self.problem_table: gr.Dataframe(value=view.problem_table, visible=some),
            self.report: gr.DownloadButton(value=report, visible=some),
            self.table: view.table,
        }


class _Columns:
    """The mapping of columns."""

    def __init__(self) -> None:
        self.pending = gr.State([])  # uploaded files whose columns are not mapped yet
        with gr.Accordion("Column mapping", open=False, elem_id="columns") as self.panel:
            with gr.Row():
                self.fields = {
                    name: gr.Dropdown(
                        [actions.NONE],
                        value=actions.NONE,
                        label=LABELS.get(name, name.capitalize()),
                        info=info.description,
                        min_width=200,
                        allow_custom_value=name == "encoding",
                        elem_id=f"column-{name}",
                    )
                    for name, info in Mapping.model_fields.items()
                    if name in actions.IN_FORM
                }
            with gr.Row():
                self.apply = action_button("Apply mapping", "apply-columns", 240)
                self.file = download_button("Download mapping", "mapping-file", 240)

    def updates(self, columns: Sequence[str], mapping: dict[str, str]) -> Updates:
        """The fields of a mapping, with these columns as choices."""
        named = [(name, name) for name in columns]
        choices = {"encoding": ENCODING_CHOICES} | {name: [*MARK_CHOICES, *named] for name in actions.MARKS}
        return {
            field: gr.Dropdown(
                choices=choices.get(name, [("(none)", actions.NONE), *named]), value=mapping.get(name, actions.NONE)
            )
            for name, field in self.fields.items()
        }


def _files(context: Context) -> None:
    """Buttons that add a file of held-out rows to the dataset, and that remove the dataset."""
    services, dataset = context.services, context.dataset
    with gr.Row():
        heldout = upload_button("Upload held-out rows", "upload-heldout", SUFFIXES, 220)
        remove = action_button("Remove this dataset", "remove", 220, interactive=False, size="sm")
        sentence("Held-out rows are a second file to evaluate on. Without it, a share of these rows is held out.")

    @handler
    def hold_out(dataset_id: str, file: str) -> str:
        return actions.hold_out(services, dataset_id, file)

    heldout.upload(hold_out, [dataset, heldout], dataset, api_visibility="private")
    _removal(context, remove)


def _removal(context: Context, remove: gr.Button) -> None:
    """Remove the dataset, after a confirmation."""
    services, dataset = context.services, context.dataset
    with gr.Row(visible=False, elem_id="really-remove") as question:
        sentence("Remove the dataset's files from this workspace? Runs that were trained on it keep their results.")
        yes = action_button("Remove", "remove-yes", 120, variant="stop", size="sm")
        no = action_button("Keep", "remove-no", 120, size="sm")

    @handler
    def go(dataset_id: str) -> Updates:
        actions.remove(services, dataset_id)
        return {dataset: DEMO, question: gr.Row(visible=False)}

    remove.click(lambda: gr.Row(visible=True), None, question, **QUIET)
    no.click(lambda: gr.Row(visible=False), None, question, **QUIET)
    yes.click(go, dataset, [dataset, question], **QUIET)
    context.signals.follow(
        [dataset.change],
        lambda dataset_id: {remove: gr.Button(interactive=dataset_id != DEMO), question: gr.Row(visible=False)},
        dataset,
        [remove, question],
    )


class _AsTheModelReadsIt:
    """Lengths in tokens, and a first batch."""

    def __init__(self, context: Context) -> None:
        self._context = context
        with gr.Accordion("As the model reads it", open=True):
            self.counts = sentence("", elem_id="tokens-sentence")
            self.lengths = plot_panel("lengths", "Rows by their length in tokens")
            self.reading = sentence("", elem_id="batch-sentence")
            self.batch = batch_view("batch")
            self.checks = gr.Dataframe(
                headers=as_read.CHECK_COLUMNS,
                column_widths=["28%", "24%", "48%"],
                wrap=True,
                interactive=False,
                max_height=420,
                elem_id="template-checks",
                label="The base model's chat template",
            )

    def wire(self, viewed: gr.events.Dependency) -> None:
        """Fill it after the dataset is shown, and when the model or the longest row changes."""
        context = self._context
        inputs = [context.dataset, context.model, context.max_length]
        outputs = [self.counts, self.lengths, self.reading, self.batch, self.checks]
        viewed.success(self._handler(), inputs, outputs, api_visibility="private")
        context.signals.follow([context.model.change, context.max_length.change], self._handler(), inputs, outputs)

    def _handler(self) -> Callable[[str, str, float], Updates]:
        @handler
        def read(dataset_id: str, model: str, max_length: float) -> Updates:
            view = as_read.tokens(self._context.services, dataset_id, model, int(max_length))
            return {
                self.counts: say(view.sentence),
                self.lengths: view.lengths,
                self.reading: say(view.batch_sentence),
                self.batch: view.batch,
                self.checks: view.checks,
            }

        return read
