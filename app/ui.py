"""The page: the context bar, the tabs in the order of the work, and what is kept over a reload."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from hydralora.data.store import DEMO

from .actions import data as data_actions
from .actions.runs import table as runs_actions
from .actions.train import run as train_actions
from .page.browser_state import browser_state, kept
from .page.text import QUIET, shown
from .services import Services
from .tabs import data
from .tabs.chat import tab as chat
from .tabs.clusters import tab as clusters
from .tabs.parameters import tab as parameters
from .tabs.runs import tab as runs
from .tabs.train import recipe_form
from .tabs.train import tab as train

STYLE = Path(__file__).with_name("style.css")
# The tab that was open is opened by the browser itself: an answer of the server's would come after the click of one who
# is quick. A run that is newly named in the address is shown in Train.
OPEN_TAB = """kept => {
  const held = window.held.hydralora, linked = new URLSearchParams(location.search).get('run');
  if (linked && linked !== held.linked && !window.early?.hydralora?.tab) held.tab = 'train';
  held.linked = linked;
  [...document.querySelectorAll('#tabs button')].find((button) => button.dataset.tabId === held.tab)?.click();
  return [{...held}];
}"""
FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]


def theme() -> gr.themes.Base:
    """One accent colour, system fonts: nothing is fetched."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="gray", font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


def build(services: Services) -> gr.Blocks:
    """The whole page, wired."""
    with gr.Blocks(
        title="HydraLoRA studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)
    ) as page:
        place, settings, answers = kept("hydralora"), kept("hydralora-form"), browser_state("hydralora-chat")
        deleted = browser_state("hydralora-deleted")
        with gr.Row(elem_id="context"):
            gr.HTML("<h1>HydraLoRA studio</h1>", min_width=200)
            dataset = gr.Dropdown(data_actions.choices(services), value=DEMO, label="Dataset", elem_id="dataset")
            run = gr.Dropdown(train_actions.run_choices(services), value=None, label="Run", elem_id="run", scale=2)
        model, max_length = recipe_form.model_choice(services), recipe_form.longest_row()  # shown in a later tab
        place.keep_all({"dataset": dataset, "run": run})
        settings.keep_all({recipe_form.MODEL: model, recipe_form.LONGEST: max_length})

        def reopen(kept: dict[str, Any] | None, request: gr.Request) -> tuple:
            """What was kept, or the run that the address names (?run=ID)."""
            kept = kept or {}
            if linked := request.query_params.get("run"):
                kept = kept | {"run": linked}
            datasets = data_actions.choices(services)
            runs = train_actions.run_choices(services)
            known = {value for _, value in runs}
            chosen = kept.get("run") if kept.get("run") in known else train_actions.newest_run(services)
            if linked and linked not in known:
                gr.Warning(f"There is no run {html.escape(linked[:40])} in this workspace.")
            dataset_id = kept.get("dataset") if kept.get("dataset") in {value for _, value in datasets} else DEMO
            return gr.Dropdown(choices=datasets, value=dataset_id), gr.Dropdown(choices=runs, value=chosen)

        opened = place.restore(page, reopen, [dataset, run])
        opened.then(None, place.state, place.state, js=OPEN_TAB, **QUIET)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("1 Data", id="data") as data_tab:
                place.keep("tab", data_tab.select, value="data")
                data_view = data.build(services, dataset, page, model, max_length)
            with gr.Tab("2 Clusters", id="clusters") as clusters_tab:
                place.keep("tab", clusters_tab.select, value="clusters", by_hand=True)
                clusters_view = clusters.build(services, dataset, clusters_tab, model, max_length, settings)
            with gr.Tab("3 Train", id="train") as train_tab:
                place.keep("tab", train_tab.select, value="train", by_hand=True)
                form = recipe_form.build(
                    services, dataset, train_tab, page, settings, model, max_length, clusters_view.fields
                )
                train_view = train.build(services, form, run, train_tab, page)
            with gr.Tab("4 Runs", id="runs") as runs_tab:
                place.keep("tab", runs_tab.select, value="runs", by_hand=True)
                runs_view = runs.build(services, run, runs_tab, model, deleted)
            with gr.Tab("5 Parameters", id="parameters") as parameters_tab:
                place.keep("tab", parameters_tab.select, value="parameters", by_hand=True)
                parameters_view = parameters.build(services, run, parameters_tab)
            with gr.Tab("6 Chat", id="chat") as chat_tab:
                place.keep("tab", chat_tab.select, value="chat", by_hand=True)
                chat.build(services, dataset, run, model, chat_tab, answers)

        def go(tab: str) -> gr.Tabs:
            return gr.Tabs(selected=tab)

        data_view.next.click(lambda: go("clusters"), None, tabs, api_visibility="private")
        fields = form.fields
        planned = [fields[key] for key in ("tuner.num_heads", "components.only", "method", "data.stratify")] + [tabs]
        clusters_view.use.click(
            lambda k: (k, 0, "hydralora", gr.skip(), go("train")), clusters_view.k, planned, api_visibility="private"
        )
        clusters_view.alone.click(  # some of a small component must be held out
            lambda k, number: (k, number, "lora", "component", go("train")),
            [clusters_view.k, clusters_view.number],
            planned,
            api_visibility="private",
        )

        for button, settings_of in ((runs_view.again, runs_actions.settings), (runs_view.on, runs_actions.going_on)):

            @shown
            def use_settings(run_id: str, settings_of: Callable = settings_of) -> tuple:
                return *recipe_form.as_form(fields, settings_of(services, run_id, list(fields))), go("train")

            button.click(use_settings, run, [dataset, model, *fields.values(), tabs], api_visibility="private")
        runs_view.next.click(lambda: go("parameters"), None, tabs, api_visibility="private")
        train_view.next.click(lambda: go("parameters"), None, tabs, api_visibility="private")
        parameters_view.next.click(lambda: go("chat"), None, tabs, api_visibility="private")
    return page
