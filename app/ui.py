"""The page: the context bar, the tabs in the order of work, and the state kept across reloads."""

import html
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gradio as gr

from hydralora.data.store import DEMO

from .actions import data as data_actions
from .actions.recipes import FormValues
from .actions.run_choices import newest_run, run_choices
from .actions.runs import tab as runs_actions
from .page.browser_state import KeptChoices, browser_state
from .page.context import Context
from .page.handlers import Component, Updates, handler
from .page.signals import Signals
from .services import Services
from .tabs import data
from .tabs.chat import tab as chat
from .tabs.clusters import tab as clusters
from .tabs.parameters import tab as parameters
from .tabs.runs import tab as runs
from .tabs.train import recipe_form
from .tabs.train import tab as train

STYLE = Path(__file__).with_name("style.css")
FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]


def theme() -> gr.themes.Base:
    """One accent colour, system fonts: nothing is fetched."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="gray", font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


def build(services: Services) -> gr.Blocks:
    """The whole page with its listeners."""
    with gr.Blocks(
        title="HydraLoRA studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)
    ) as page:
        place, settings = KeptChoices(browser_state("hydralora")), KeptChoices(browser_state("hydralora-form"))
        answers, deleted = browser_state("hydralora-chat"), browser_state("hydralora-deleted")
        signals = Signals()
        context = _context(services, page, signals, place, settings)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("1 Data", id="data") as tab:
                place.keep_value("tab", tab.select, "data")
                to_clusters = data.build(context)
            with _tab("2 Clusters", "clusters", place) as tab:
                clusters_tab = clusters.build(context, tab, settings)
            with _tab("3 Train", "train", place) as tab:
                form = recipe_form.build(context, tab, settings, clusters_tab.fields)
                after_training = train.build(context, tab, form)
            with _tab("4 Runs", "runs", place) as tab:
                runs_tab = runs.build(context, tab, deleted)
            with _tab("5 Parameters", "parameters", place) as tab:
                to_chat = parameters.build(context, tab)
            with _tab("6 Chat", "chat", place) as tab:
                chat.build(context, tab, answers)
        leads = {to_clusters: "clusters", after_training: "parameters", runs_tab.next: "parameters", to_chat: "chat"}
        for button, target in leads.items():
            button.click(partial(gr.Tabs, selected=target), None, tabs, api_visibility="private")
        _plan_run(clusters_tab, form, tabs)
        _copy_settings(context, runs_tab, form, tabs)
    return page


def _tab(label: str, name: str, place: KeptChoices) -> gr.Tab:
    """A tab; the browser remembers which one a person opened."""
    tab = gr.Tab(label, id=name)
    place.keep_value("tab", tab.select, name, by_hand=True)
    return tab


def _context(
    services: Services, page: gr.Blocks, signals: Signals, place: KeptChoices, settings: KeptChoices
) -> Context:
    """The bar above the tabs; its choices are restored."""
    with gr.Row(elem_id="context"):
        gr.HTML("<h1>HydraLoRA studio</h1>", min_width=200)
        dataset = gr.Dropdown(data_actions.choices(services), value=DEMO, label="Dataset", elem_id="dataset")
        run = gr.Dropdown(run_choices(services), value=None, label="Run", elem_id="run", scale=2)
    model, max_length = recipe_form.model_choice(services), recipe_form.longest_row()  # drawn in a later tab
    place.keep_all({"dataset": dataset, "run": run})
    settings.keep_all({recipe_form.MODEL: model, recipe_form.LONGEST: max_length})

    def reopen(stored: dict[str, str] | None, request: gr.Request) -> Updates:
        """The stored choices, or the run that the address names (?run=ID)."""
        stored = stored or {}
        linked = request.query_params.get("run")
        datasets, runs = data_actions.choices(services), run_choices(services)
        known = {value for _, value in runs}
        run_id = linked or stored.get("run")
        if linked and linked not in known:
            gr.Warning(f"There is no run {html.escape(linked[:40])} in this workspace.")
        dataset_id = stored.get("dataset") if stored.get("dataset") in {value for _, value in datasets} else DEMO
        return {
            dataset: gr.Dropdown(choices=datasets, value=dataset_id),
            run: gr.Dropdown(choices=runs, value=run_id if run_id in known else newest_run(services)),
        }

    place.open_tab(after=place.restore(page, reopen, [dataset, run]))
    return Context(services, page, signals, dataset, run, model, max_length)


def _plan_run(clusters_tab: clusters.ClustersTab, form: recipe_form.RecipeForm, tabs: gr.Tabs) -> None:
    """Fill the run form from the components: as many heads, or one component alone."""
    names = ("tuner.num_heads", "components.only", "method", "data.stratify")
    heads, only, method, stratify = (form.fields[name] for name in names)

    def all_components(k: int) -> Updates:
        return {heads: k, only: 0, method: "hydralora", tabs: gr.Tabs(selected="train")}

    def one_component(k: int, number: int) -> Updates:
        # Some rows of a small component must be held out.
        settings: Updates = {heads: k, only: number, method: "lora", stratify: "component"}
        return settings | {tabs: gr.Tabs(selected="train")}

    outputs = [heads, only, method, stratify, tabs]
    clusters_tab.use.click(all_components, clusters_tab.k, outputs, api_visibility="private")
    inputs = [clusters_tab.k, clusters_tab.number]
    clusters_tab.alone.click(one_component, inputs, outputs, api_visibility="private")


def _copy_settings(context: Context, runs_tab: runs.RunsTab, form: recipe_form.RecipeForm, tabs: gr.Tabs) -> None:
    """Copy a run's settings into the form, unchanged or to continue its training."""
    sources: list[tuple[gr.Button, Callable[..., FormValues]]] = [
        (runs_tab.copy, runs_actions.settings),
        (runs_tab.continue_training, runs_actions.continuing),
    ]
    outputs: list[Component] = [*form.inputs, tabs]
    for button, settings_of in sources:

        @handler
        def use_settings(run_id: str, settings_of: Callable[..., FormValues] = settings_of) -> Updates:
            values = settings_of(context.services, run_id, list(form.fields))
            return form.updates(values) | {tabs: gr.Tabs(selected="train")}

        button.click(use_settings, context.run, outputs, api_visibility="private")
