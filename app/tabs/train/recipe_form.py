"""The form of a run: a recipe's settings, presets, what is wrong with any of them, and the recipe as a file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hydralora.errors import HydraError
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.settings import METHOD_NAMES

from ...actions import recipes
from ...actions.train import run as actions
from ...page import forms
from ...page.browser_state import Kept
from ...page.buttons import upload_button
from ...page.forms import Widget, keys_of, values, widget
from ...page.text import LATEST, QUIET, say, sentence, shown
from ...services import Services

MAIN = ("tuner.num_heads", "training.max_steps", "training.batch_size")
MODEL = "model"
LONGEST = "training.max_length"
ASKED_ELSEWHERE = (*MAIN, LONGEST, "data.eval", "data.mapping", "data.task_column")
GROUPS = {
    "Method and adapter": ["method", "start_from", "quantization", *keys_of("tuner")],
    "Rows": ["components.only", *keys_of("data")],
    "Training": keys_of("training"),
    "Processes": keys_of("launch"),
}
LABELS = {
    "tuner.num_heads": "Heads (N)",
    "training.max_steps": "Steps",
    "tuner.r": "Rank",
    "tuner.lora_alpha": "Alpha",
    "tuner.lora_dropout": "Dropout",
    "tuner.router_init": "Router start",
    "tuner.router_input": "Router reads",
    "training.max_length": "Longest row",
    "training.eval_every": "Evaluate every",
    "training.prompts": "Prompts answered",
    "start_from": "Train on from",
    "training.save_every": "Checkpoint every",
    "components.only": "One component alone",
    "data.eval_fraction": "Held-out share",
    "data.stratify": "Held out alike",
    "training.overlong": "Rows that are too long",
}
NAMES = {"method": METHOD_NAMES}


@dataclass(frozen=True)
class RecipeForm:
    dataset: gr.Dropdown
    model: gr.Dropdown
    fields: dict[str, Widget]  # by setting

    @property
    def inputs(self) -> list[Any]:
        """Dataset, base model and fields, as handlers take them."""
        return [self.dataset, self.model, *self.fields.values()]


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
    return _widget(LONGEST, render=False)


def _widget(key: str, **more: Any) -> Widget:
    return widget(key, LABELS.get(key), NAMES.get(key), min_width=200, **more)


def build(
    services: Services,
    dataset: gr.Dropdown,
    tab: gr.Tab,
    page: gr.Blocks,
    kept: Kept,
    model: gr.Dropdown,
    max_length: Widget,
    components: dict[str, Widget],
) -> RecipeForm:
    """Draw the form. The widgets of `components` stand in another tab, and belong to it; they, the base model's and
    that of `max_length` are kept where they are made."""
    with gr.Row():
        model.render()
        fields = {key: _widget(key) for key in MAIN}
    with gr.Row():
        presets = [gr.Button(name, size="sm", scale=0, min_width=110) for name in PRESETS]
        sentence("Presets set all of these; what the Clusters tab asks for stays.")
    with gr.Accordion("More settings", open=False):
        for group, keys in GROUPS.items():
            sentence(group, elem_classes=["group"])
            with gr.Row(elem_classes=["settings"]):
                if group == "Training":
                    max_length.render()
                fields |= {key: _widget(key) for key in keys if key not in ASKED_ELSEWHERE}
    kept.keep_all(fields)
    form = RecipeForm(dataset, model, fields | {LONGEST: max_length} | components)
    _restore(page, kept, {MODEL: model} | form.fields)
    with gr.Accordion("The same from a terminal", open=False):
        recipe = _terminal(services, form)
    _presets(presets, form.fields)
    _plan(services, form, recipe, [tab.select, *(item.change for item in form.inputs)])
    return form


def _restore(page: gr.Blocks, kept: Kept, settings: dict[str, Any]) -> None:
    def back(held: Any) -> list[Any]:
        known = held if isinstance(held, dict) else {}  # an older version kept a list
        return [known.get(name, gr.skip()) for name in settings]

    kept.restore(page, back, list(settings.values()))


def _presets(buttons: list[gr.Button], fields: dict[str, Widget]) -> None:
    free = [key for key in fields if not key.startswith("components.")]
    for button in buttons:
        button.click(
            lambda name: [forms.shown(key, value) for key, value in actions.preset(name, free).items()],
            button,
            [fields[key] for key in free],
            **QUIET,
        )


def _terminal(services: Services, form: RecipeForm) -> gr.Code:
    """The recipe as a file to copy, and a button that opens one; returns where it is shown."""
    sentence(
        "Save this as recipe.yaml; on this machine, where it names files and folders, the command does the same: "
        f"hydralora train recipe.yaml --follow{recipes.workspace_option(services)}"
    )
    recipe = gr.Code(language="yaml", interactive=False, show_label=False, elem_id="recipe")
    opened = upload_button("Open a recipe", "open-recipe", (".yaml", ".yml"), 180)

    @shown
    def fill(file: str) -> tuple:
        return as_form(form.fields, actions.opened_recipe(services, file, list(form.fields)))

    opened.upload(fill, opened, form.inputs, **QUIET)
    return recipe


def _plan(services: Services, form: RecipeForm, recipe: gr.Code, events: list[Callable]) -> None:
    """What would be trained, and beside every field what is wrong with it."""
    fields = form.fields
    flagged = gr.State([])  # keys of the fields beside which an error stands
    planned = sentence("", elem_id="plan")

    def outline(before: list[str], dataset_id: str, model: str, *held: object) -> dict[Any, Any]:
        given = values(fields, held)
        wrong = recipes.wrong_in_form(services, dataset_id, model, given)
        now = [key for key in wrong if key in fields]
        seen: dict[Any, Any] = {flagged: now}
        for key in {*before, *now}:
            field, flaw = fields[key], wrong.get(key)
            seen[field] = type(field)(info=flaw or field.info, elem_classes=["wrong"] if flaw else [])
        try:
            told = actions.plan(services, dataset_id, model, given)
            return seen | {planned: say(told), recipe: actions.recipe_text(services, dataset_id, model, given)}
        except HydraError as error:
            return seen | {planned: say(str(error))}

    outputs = [flagged, planned, recipe, *fields.values()]
    gr.on(events, outline, [flagged, *form.inputs], outputs, **LATEST)


def as_form(fields: dict[str, Widget], recipe: recipes.FormValues) -> tuple:
    """What a recipe puts into the form: dataset, base model, fields; a warning where this workspace lacks one, or the
    form a place for a setting."""
    for missing, what in ((recipe.dataset, "dataset"), (recipe.model, "base model")):
        if not missing:
            gr.Warning(f"Its {what} is not in this workspace, so the {what} in the form stays as it is.")
    if recipe.lost:
        gr.Warning(
            f"The form has no place for {', '.join(recipe.lost)}, so a run that is started here goes without. "
            "To keep that, train the recipe in a terminal: hydralora train RECIPE.yaml."
        )
    shown_values = (forms.shown(key, value) for key, value in zip(fields, recipe.values, strict=True))
    return recipe.dataset or gr.skip(), recipe.model or gr.skip(), *shown_values
