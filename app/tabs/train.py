"""Train: the few settings that matter, Start and Stop, and the run as it goes."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.actions import recipes
from app.actions import train as actions
from app.components.plot import plot_panel
from app.forms import Widget, values, widget
from app.services import Services
from app.tabs.kept import keep, restore
from app.tabs.messages import QUIET, say, sentence, shown
from hydralora.errors import HydraError
from hydralora.models import DEFAULT_MODEL

POLL_SECONDS = 1.0
MAIN = (
    ("tuner.num_heads", "Heads (N)"),
    ("training.max_steps", "Steps"),
    ("training.batch_size", "Batch size"),
)
LONGEST = ("training.max_length", "Longest row")
MORE = (
    ("method", "Method"),
    ("tuner.r", "Rank"),
    ("tuner.lora_alpha", "Alpha"),
    ("tuner.router_init", "Router start"),
    ("tuner.router_input", "Router reads"),
    ("training.learning_rate", "Learning rate"),
    ("training.eval_every", "Evaluate every"),
    ("components.only", "One component alone"),
    ("data.eval_fraction", "Held-out share"),
    ("data.stratify", "Held out alike"),
    ("training.overlong", "Rows that are too long"),
    ("training.seed", "Seed"),
)


@dataclass(frozen=True)
class TrainTab:
    fields: dict[str, Widget]
    next: gr.Button


def model_choice(services: Services) -> gr.Dropdown:
    """The base model's dropdown, not drawn yet: other tabs need its value."""
    return gr.Dropdown(
        recipes.model_choices(services),
        value=DEFAULT_MODEL,
        allow_custom_value=True,
        label="Base model",
        info="From the list, or any Hugging Face id of a causal language model.",
        elem_id="model",
        render=False,
    )


def longest_row() -> Widget:
    """The widget of max_length, not drawn yet."""
    return widget(*LONGEST, render=False)


def build(
    services: Services,
    dataset: gr.Dropdown,
    run: gr.Dropdown,
    tab: gr.Tab,
    page: gr.Blocks,
    kept: gr.BrowserState,
    model: gr.Dropdown,
    max_length: Widget,
    components: dict[str, Widget],
) -> TrainTab:
    with gr.Row():
        model.render()
        fields = {key: widget(key, label) for key, label in MAIN}
    with gr.Accordion("More settings", open=False), gr.Row(elem_classes=["settings"]):
        max_length.render()
        fields |= {LONGEST[0]: max_length} | {key: widget(key, label) for key, label in MORE} | components
    planned = sentence("", elem_id="plan")
    with gr.Row():
        start = gr.Button("Start training", variant="primary", elem_id="start")
        stop = gr.Button("Stop and keep what was learnt", elem_id="stop", interactive=False)
        resume = gr.Button("Resume", elem_id="resume", visible=False)
    device = sentence("", elem_id="device")
    status = sentence("", elem_id="status")
    with gr.Row():
        loss = plot_panel("loss", "Loss over steps", empty="The loss is drawn here once training starts.")
        load = plot_panel("load", "Mean gate of each head over steps", empty="The load of each head is drawn here.")
    sentence(
        "Left: lower is better; the dotted line is a sample of the held-out rows, the diamonds are all of them, "
        "before and after. Right: a router that moves gives heads unlike loads on "
        "unlike tasks; entropy near 1 means that the gates stayed uniform. The load is a mean over all rows, so it "
        "can't show which task uses which head: the table of components below does, after the run."
    )
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
    outputs = [seen, status, start, stop, resume, loss, load, table, use]

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
        return (view.signature, say(view.status), *buttons, view.loss, view.load, view.table, view.use)

    @shown
    def describe(dataset_id: str, model: str, *held: object) -> str:
        return say(actions.device_line(services, dataset_id, model, values(fields, held)))

    @shown
    def outline(dataset_id: str, model: str, *held: object) -> str:
        return say(actions.plan(services, dataset_id, model, values(fields, held)))

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

    settings = [model, *fields.values()]
    keep(kept, [item.change for item in settings], settings, "(_, ...now) => now")
    restore(
        page,
        kept,
        lambda held: held if held and len(held) == len(settings) else [gr.skip() for _ in settings],
        settings,
    )
    form = [dataset, *settings]
    start.click(begin, form, [run, start], api_visibility="private")
    stop.click(end, run, stop, api_visibility="private")
    resume.click(go_on, run, resume, api_visibility="private")
    refreshing: dict[str, Any] = {"fn": show, "inputs": [run, seen], "outputs": outputs} | QUIET
    gr.Timer(POLL_SECONDS).tick(**refreshing)
    gr.on([run.change, page.load], **refreshing)
    estimated = [fields["training.max_steps"], fields["training.batch_size"], model]
    gr.on(
        [tab.select, dataset.change, *(item.change for item in estimated)],
        describe,
        form,
        device,
        **QUIET,
        trigger_mode="always_last",
    )
    outlined = [fields[key] for key in ("tuner.num_heads", "tuner.r", "method", "components.only")]
    gr.on(
        [tab.select, dataset.change, *(item.change for item in outlined)],
        outline,
        form,
        planned,
        **QUIET,
        trigger_mode="always_last",
    )
    return TrainTab(fields, following)
