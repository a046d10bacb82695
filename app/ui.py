"""The page: its frame, the pages in the order of work, and the state kept across reloads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from .actions.recipes import FormValues
from .actions.runs import tab as runs_actions
from .actions.shell import BESIDE, PATH
from .page.blocks import Blocks
from .page.browser_state import KeptChoices, browser_state
from .page.context import Context
from .page.handlers import QUIET, Component, Updates, handler
from .page.signals import Signals
from .services import Services
from .tabs import tour
from .tabs.chat import tab as chat
from .tabs.components import tab as components
from .tabs.data import tab as data
from .tabs.explore import tab as explore
from .tabs.lab import tab as lab
from .tabs.learn import tab as learn
from .tabs.runs import tab as runs
from .tabs.shell import Shell
from .tabs.train import recipe_form
from .tabs.train import tab as train

FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]


def theme() -> gr.themes.Base:
    """One accent colour, system fonts: nothing is fetched."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="gray", font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


def build(services: Services) -> gr.Blocks:
    """The whole page with its listeners."""
    with Blocks(title="HydraLoRA studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as page:
        place, settings = KeptChoices(browser_state("hydralora", {})), KeptChoices(browser_state("hydralora-form", {}))
        answers, deleted = browser_state("hydralora-chat", []), browser_state("hydralora-deleted", {})
        learnt, quiz = KeptChoices(browser_state("hydralora-learn", {})), browser_state("hydralora-quiz", {})
        studies = KeptChoices(browser_state("hydralora-lab", {}))
        before_tour = browser_state("hydralora-before-tour", {})
        shell = Shell(services)
        context = _context(services, page, shell, place, settings)
        with gr.Tabs(elem_id="tabs") as tabs:
            with _page(shell.signals, "data") as tab:
                to_clusters = data.build(context)
            with _page(shell.signals, "components") as tab:
                components_tab = components.build(context, tab, settings)
            with _page(shell.signals, "train") as tab:
                form = recipe_form.build(context, tab, settings, components_tab.fields)
                after_training = train.build(context, tab, form)
            with _page(shell.signals, "runs") as tab:
                runs_tab = runs.build(context, tab, deleted)
            with _page(shell.signals, "explore") as tab:
                to_chat = explore.build(context, tab)
            with _page(shell.signals, "chat") as tab:
                conversation = chat.build(context, tab, answers)
            with _page(shell.signals, "lab") as tab:
                lab.build(context, tab, studies)
            with _page(shell.signals, "learn") as tab:
                sandbox_to_explore = learn.build(context, tab, learnt, quiz)
        shell.wire(context, components_tab.k)
        tour.build(context, conversation, before_tour)
        leads = {to_clusters: "components", after_training: "explore", runs_tab.next: "explore", to_chat: "chat"}
        leads |= {sandbox_to_explore: "explore"}
        for button, target in leads.items():
            button.click(None, None, None, js=f"() => studio.go('{target}')", **QUIET)
        _plan_run(components_tab, form, tabs)
        _copy_settings(context, runs_tab, form, tabs)
    return page


@contextmanager
def _page(signals: Signals, name: str) -> Iterator[gr.Tab]:
    """A page; the browser opens it, and is told when the server does. Its listeners wait until it is open."""
    with gr.Tab((PATH | BESIDE)[name], id=name) as tab:
        tab.select(None, None, None, js=f"() => studio.shown('{name}')", **QUIET)
        signals.page = name
        yield tab
        signals.page = None


def _context(services: Services, page: gr.Blocks, shell: Shell, place: KeptChoices, settings: KeptChoices) -> Context:
    """What the pages share; the browser keeps its choices."""
    model, max_length = recipe_form.model_choice(services), recipe_form.longest_row()  # drawn in a later tab
    place.keep_all({"dataset": shell.dataset, "run": shell.run})
    settings.keep_all({recipe_form.MODEL: model, recipe_form.LONGEST: max_length})
    shell.restore(page, place)
    return Context(services, page, shell.signals, shell.dataset, shell.run, model, max_length)


def _plan_run(components_tab: components.ComponentsTab, form: recipe_form.RecipeForm, tabs: gr.Tabs) -> None:
    """Fill the run form from the components: as many heads, or one component alone."""
    names = ("tuner.num_heads", "components.only", "method", "data.stratify")
    heads, only, method, stratify = (form.fields[name] for name in names)

    def all_components(k: int) -> Updates:
        return {heads: k, only: 0, method: "hydralora", tabs: gr.Tabs(selected="train")} | form.unfolded

    def one_component(k: int, number: int) -> Updates:
        # Some rows of a small component must be held out.
        settings: Updates = {heads: k, only: number, method: "lora", stratify: "component"}
        return settings | {tabs: gr.Tabs(selected="train")} | form.unfolded

    outputs = [heads, only, method, stratify, tabs, form.setup]
    components_tab.use.click(all_components, components_tab.k, outputs, api_visibility="private")
    inputs = [components_tab.k, components_tab.number]
    components_tab.alone.click(one_component, inputs, outputs, api_visibility="private")


def _copy_settings(context: Context, runs_tab: runs.RunsTab, form: recipe_form.RecipeForm, tabs: gr.Tabs) -> None:
    """Copy a run's settings into the form, unchanged or to continue its training."""
    sources: list[tuple[gr.Button, Callable[..., FormValues]]] = [
        (runs_tab.copy, runs_actions.settings),
        (runs_tab.continue_training, runs_actions.continuing),
    ]
    outputs: list[Component] = [*form.inputs, form.setup, tabs]
    for button, settings_of in sources:

        @handler
        def use_settings(run_id: str, settings_of: Callable[..., FormValues] = settings_of) -> Updates:
            values = settings_of(context.services, run_id, list(form.fields))
            return form.updates(values) | {tabs: gr.Tabs(selected="train")}

        button.click(use_settings, context.run, outputs, api_visibility="private")
