"""Clusters: the components of the dataset, how sure their number is, and the number of heads that they suggest."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import gradio as gr

from hydralora.errors import HydraError
from hydralora.recipe.settings import TrainingSettings

from ...actions.clusters import components as actions
from ...actions.recipes import component_settings
from ...page.browser_state import Kept
from ...page.forms import Widget, values, widget
from ...page.text import LATEST, QUIET, say, sentence, shown, shown_stream, until_superseded
from ...services import Asked, Services
from ...services.background import Done
from ...widgets.plot import plot_panel
from . import row_map

FEATURES = {
    "tfidf-svd": "words (TF-IDF, reduced)",
    "tfidf": "words (plain TF-IDF, the paper's)",
    "model": "the base model's states",
    "sentence": "a sentence model",
}
LONGEST = TrainingSettings.model_fields["max_length"].default
FILES: dict[Literal["csv", "parquet"], str] = {"csv": "CSV", "parquet": "Parquet"}


@dataclass(frozen=True)
class ClustersTab:
    """`fields` are the settings of a run's components; `k` how many were found; `number` the one looked at."""

    fields: dict[str, Widget]
    use: gr.Button
    k: gr.State
    alone: gr.Button
    number: gr.Dropdown


def build(
    services: Services, dataset: gr.Dropdown, tab: gr.Tab, model: gr.Dropdown, max_length: Widget, kept: Kept
) -> ClustersTab:
    found = gr.State(None)
    answer = sentence("", elem_id="clusters-sentence")
    fields = _settings(kept)
    with gr.Row():
        use = gr.Button("Use these heads", variant="primary", elem_id="use-heads", scale=0, min_width=220)
        files = [
            gr.DownloadButton(
                f"Rows with components ({name})", elem_id=f"components-{kind}", size="md", scale=0, min_width=250
            )
            for kind, name in FILES.items()
        ]
        stop = gr.Button("Stop clustering", visible=False, elem_id="stop-clustering", scale=0, min_width=160)
    with gr.Row():
        curve = plot_panel("elbow", "How the number of components was found")
        bars = plot_panel("sizes", "Rows in each component")
    curve_help = sentence(actions.HELP["kmeans"], elem_id="curve-help")
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        column_widths=["7%", "12%", "27%", "27%", "27%"],
        wrap=True,
        interactive=False,
        elem_id="components",
        label="Components; click a row to look into one",
    )
    asked = [model, *fields.values()]

    def reading(model: str, *held: Any) -> Asked:
        return component_settings(services, model, values(fields, held))

    number, alone, look, named = _one_component(services, dataset, model, max_length, asked, reading)
    agreement = sentence("", elem_id="agreement")
    tasks = plot_panel("tasks", "Rows of each task in each component", empty="The rows name no task to compare with.")
    forget = _trials(services, dataset, asked, reading)
    draw = row_map.build(services, dataset, asked, reading)

    nothing: dict[Any, Any] = {  # no component of another dataset, or of other settings, is offered
        found: None,
        use: gr.Button("Use these heads", interactive=False),
        alone: gr.Button(interactive=False),
        stop: gr.Button(visible=False),
        curve: "",
        bars: "",
        table: [],
        agreement: "",
        tasks: "",
    }

    @shown_stream
    def show(dataset_id: str, chosen: int | None, *held: Any) -> Iterator[dict]:
        off = gr.Button(interactive=False)
        try:
            for step in actions.find(services, dataset_id, reading(*held)):
                if isinstance(step, Done):
                    yield overview(step.value, chosen)
                else:
                    yield {answer: say(step), use: off, alone: off, stop: gr.Button(visible=True)}
        except HydraError as error:
            yield nothing | {answer: say(str(error))}
            raise

    def overview(seen: actions.ClusterView, chosen: int | None) -> dict[Any, Any]:
        return {
            found: seen.k,
            answer: say(seen.sentence),
            use: gr.Button(f"Use {seen.k} head{'s' if seen.k > 1 else ''}", interactive=True),
            alone: gr.Button(interactive=True),
            stop: gr.Button(visible=False),
            curve: seen.curve,
            curve_help: say(seen.help),
            bars: seen.sizes,
            table: seen.table,
            agreement: say(seen.agreement),
            tasks: seen.tasks,
            number: _chosen(seen, chosen),
        }

    @shown
    def write(dataset_id: str, *held: Any) -> list[gr.DownloadButton]:
        way = reading(*held)
        return [gr.DownloadButton(value=actions.rows_file(services, dataset_id, way, kind)) for kind in FILES]

    outputs = [found, answer, use, alone, stop, curve, curve_help, bars, table, agreement, tasks, number]
    changed = gr.on(
        [tab.select, dataset.change, model.change, *(event for field in fields.values() for event in _settled(field))],
        show,
        [dataset, number, *asked],
        outputs,
        **LATEST,
    )
    stopped = say("Stopped. Change a setting, or open this tab again, to start anew.")
    stop.click(lambda: nothing | {answer: stopped}, None, outputs, cancels=[changed], **QUIET)
    changed.success(**look, **QUIET)
    changed.success(**forget, **QUIET)
    changed.success(**draw, **QUIET)
    changed.success(write, [dataset, *asked], files, **QUIET)

    @shown
    def rename(dataset_id: str, chosen: int, name: str, *held: Any) -> dict:
        return overview(actions.rename(services, dataset_id, reading(*held), chosen, name), chosen)

    renamed = named.submit(rename, [dataset, number, named, *asked], outputs, **QUIET)
    renamed.success(**draw, **QUIET)
    renamed.success(write, [dataset, *asked], files, **QUIET)

    def choose(event: gr.SelectData) -> int:
        return int(event.row_value[0])

    table.select(choose, None, number, **QUIET).success(**look, **QUIET)
    return ClustersTab(fields, use, found, alone, number)


def _chosen(seen: actions.ClusterView, number: int | None) -> gr.Dropdown:
    """The dropdown of components; the one that is chosen stays, even if it was while they were found."""
    gone: dict[str, Any] = {} if number and number <= seen.k else {"value": 1}
    return gr.Dropdown(choices=seen.components, **gone)


def _settled(field: Widget) -> list[Any]:
    """The events at which a field holds what it shall; a name is complete when it is sent, or left."""
    return [field.submit, field.blur] if isinstance(field, gr.Textbox) else [field.change]


def _settings(kept: Kept) -> dict[str, Widget]:
    """The widgets of how components are asked for."""
    offered = {key: name for key, name in FEATURES.items() if key != "sentence" or find_spec("sentence_transformers")}
    with gr.Row():
        fields = {
            "components.k": widget("components.k", "Components", info="0 finds their number."),
            "components.method": widget(
                "components.method",
                "Method",
                names={"kmeans": "k-means", "dbscan": "DBSCAN"},
                info="DBSCAN leaves rows in no dense part as noise.",
            ),
            "components.features": widget(
                "components.features", "Rows are alike in", names=offered, info="A model reads every row first."
            ),
            "components.text": widget(
                "components.text",
                "Text compared",
                names={"question": "the question", "everything": "question and answer"},
                info="A run's held-out rows are compared by it, too.",
            ),
        }
    sentence_model = "components.sentence_model"
    fields[sentence_model] = widget(sentence_model, "Sentence model", visible=False)
    kept.keep_all(fields)
    fields["components.features"].change(
        lambda features: gr.Textbox(visible=features == "sentence"),
        fields["components.features"],
        fields[sentence_model],
        **QUIET,
    )
    fields["components.method"].change(  # DBSCAN finds their number itself
        lambda method: gr.Number(visible=method == "kmeans"),
        fields["components.method"],
        fields["components.k"],
        **QUIET,
    )
    return fields


def _one_component(
    services: Services, dataset: gr.Dropdown, model: gr.Dropdown, max_length: Widget, asked: list[Any], reading: Any
) -> tuple[gr.Dropdown, gr.Button, dict[str, Any], gr.Textbox]:
    """One component's name, rows and lengths: its dropdown, the button to train on it alone, the listener that fills
    the rest, and the name's box."""
    with gr.Accordion("One component", open=True, elem_id="one-component"):
        with gr.Row():
            number = gr.Dropdown([1], value=1, label="Component", elem_id="component", min_width=260)
            named = gr.Textbox(
                label="Its name",
                info="Enter keeps it, for this page and for runs.",
                max_lines=1,
                max_length=60,
                submit_btn="Keep",
                elem_id="component-name",
                min_width=260,
            )
            alone = gr.Button(
                "Train a LoRA on this component alone", elem_id="train-alone", scale=0, min_width=320, size="md"
            )
        told = sentence("", elem_id="component-sentence")
        rows = gr.Dataframe(
            headers=actions.DETAIL_COLUMNS,
            column_widths=["12%", "9%", "42%", "22%", "15%"],
            wrap=True,
            interactive=False,
            max_height=320,
            elem_id="component-rows",
            label="Rows in its middle and at its edge",
        )
        lengths = plot_panel(
            "component-lengths",
            "Rows of the component by their length in tokens",
            empty="Lengths are drawn once the base model is on this machine.",
        )

    boxed = gr.State("")  # whose name the box holds

    @shown
    def look(
        request: gr.Request, boxed: str, dataset_id: str, number: int | None, max_length: float | None, *held: Any
    ) -> Any:
        is_newest = services.newest(request.session_hash or "", "component")
        way = reading(*held)
        seen = actions.component(services, dataset_id, way, number or 1, held[0], int(max_length or LONGEST))
        if not is_newest():
            return gr.skip()
        whose = f"{dataset_id} {way.key} {number}"
        typed_in = boxed == whose
        box = gr.skip() if typed_in else gr.Textbox(value=seen.given, placeholder=seen.terms)
        return whose, box, say(seen.sentence), seen.rows, seen.lengths

    listener: dict[str, Any] = {
        "fn": look,
        "inputs": [boxed, dataset, number, max_length, *asked],
        "outputs": [boxed, named, told, rows, lengths],
    }
    number.input(**listener, **QUIET)
    return number, alone, listener, named


def _trials(services: Services, dataset: gr.Dropdown, asked: list[Any], reading: Any) -> dict[str, Any]:
    """The numbers that other methods find, on request; returns the listener that clears them."""
    with gr.Accordion("How many, by other methods", open=False, elem_id="trials"):
        sentence(
            f"Each of {actions.TRIALS} trials draws four fifths of the rows, 2,000 at most, and asks every method for "
            "the number of components. A method that you can rely on finds one number again and again."
        )
        with gr.Row():
            run = gr.Button(f"Run {actions.TRIALS} trials", elem_id="run-trials", scale=0, min_width=200)
            stop = gr.Button("Stop the trials", visible=False, elem_id="stop-trials", scale=0, min_width=160)
        status = sentence("", elem_id="trials-sentence")
        figure = plot_panel("trials-figure", "Number of components by method", empty="No trials yet.")

    shown_for = gr.State("")  # what the figure is of

    @shown_stream
    def go(request: gr.Request, dataset_id: str, *held: Any) -> Iterator[tuple]:
        is_newest = services.newest(request.session_hash or "", "trials")
        try:
            for step in until_superseded(is_newest, actions.trials(services, dataset_id, reading(*held))):
                if isinstance(step, Done):
                    yield "", gr.Button(visible=False), step.value
                else:
                    yield say(step), gr.Button(visible=True), gr.skip()
        except HydraError:
            yield "", gr.Button(visible=False), gr.skip()
            raise

    def forget(request: gr.Request, of: str, dataset_id: str, *held: Any) -> tuple:
        now = f"{dataset_id} {reading(*held).key}"
        if now == of:
            return tuple(gr.skip() for _ in range(4))
        services.newest(request.session_hash or "", "trials")  # those that run are of something else
        return now, "", gr.Button(visible=False), ""

    going = run.click(go, [dataset, *asked], [status, stop, figure], **QUIET)
    stop.click(lambda: (say("Stopped."), gr.Button(visible=False)), None, [status, stop], cancels=[going], **QUIET)
    return {"fn": forget, "inputs": [shown_for, dataset, *asked], "outputs": [shown_for, status, stop, figure]}
