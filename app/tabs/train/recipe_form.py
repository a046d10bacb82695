"""The form of a run: a recipe's settings, presets, errors beside the fields, and the recipe as a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from hydralora.errors import HydraError
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.settings import METHOD_NAMES, RENAMED

from ...actions import recipes
from ...actions.train import recipe_form as actions
from ...page import forms
from ...page.browser_state import KeptChoices
from ...page.buttons import upload_button
from ...page.context import Context
from ...page.forms import UNSET, Widget, keys_of, values, widget
from ...page.handlers import QUIET, Component, Updates, handler
from ...page.text import say, sentence
from ...services import Services

MAIN = ("tuner.num_heads", "training.max_steps", "training.batch_size")
MODEL = "model"
LONGEST = "training.max_length"
PLACED_ELSEWHERE = (*MAIN, LONGEST, "data.eval", "data.mapping", "data.task_column")
GROUPS = {
    "Method and adapter": ["method", "start_from", "quantization", *keys_of("tuner")],
    "Rows": ["components.only", *keys_of("data")],
    "Training": keys_of("training"),
    "Processes": keys_of("launch"),
}
OLD_UNSET = "as it comes"  # UNSET in an older version; a browser may still keep it
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
    "training.sample_prompts": "Prompts answered",
    "start_from": "Continue training",
    "training.save_every": "Checkpoint every",
    "components.only": "Only component",
    "data.eval_fraction": "Held-out share",
    "data.control_tokens": "Control tokens in rows",
    "data.stratify": "Stratify held-out rows by",
    "training.too_long": "Rows that are too long",
}
NAMES = {"method": METHOD_NAMES}


@dataclass(frozen=True)
class RecipeForm:
    """Dataset, base model and the recipe's settings, as handlers take them."""

    dataset: gr.Textbox
    model: gr.Dropdown
    fields: dict[str, Widget]  # by setting

    @property
    def inputs(self) -> list[Component]:
        return [self.dataset, self.model, *self.fields.values()]

    def updates(self, recipe: recipes.FormValues) -> Updates:
        """Fill the form from a recipe; warn if this workspace lacks its dataset or model, or the form lacks a
        setting."""
        updates: Updates = {}
        for place, value, name in ((self.dataset, recipe.dataset, "dataset"), (self.model, recipe.model, "base model")):
            if value:
                updates[place] = value
            else:
                gr.Warning(f"The recipe's {name} is not in this workspace, so the form keeps its own.")
        if recipe.lost:
            gr.Warning(
                f"The form has no place for {', '.join(recipe.lost)}, so a run started here lacks these settings. "
                "To keep them, train the recipe in a terminal: hydralora train RECIPE.yaml."
            )
        pairs = zip(self.fields.items(), recipe.values, strict=True)
        return updates | {field: forms.shown(key, value) for (key, field), value in pairs}


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


def _widget(key: str, render: bool = True) -> Widget:
    return widget(key, LABELS.get(key), NAMES.get(key), min_width=200, render=render)


def build(context: Context, tab: gr.Tab, store: KeptChoices, components: dict[str, Widget]) -> RecipeForm:
    """Draw the form. The widgets of `components` belong to another tab; these, the base model's and that of
    `max_length` are stored in the browser where they are created."""
    with gr.Row():
        context.model.render()
        fields = {key: _widget(key) for key in MAIN}
    with gr.Row():
        presets = [gr.Button(name, size="sm", scale=0, min_width=110) for name in PRESETS]
        sentence("A preset sets all fields here. The settings of the Clusters tab stay.")
    with gr.Accordion("More settings", open=False):
        for group, keys in GROUPS.items():
            sentence(group, elem_classes=["group"])
            with gr.Row(elem_classes=["settings"]):
                if group == "Training":
                    context.max_length.render()
                fields |= {key: _widget(key) for key in keys if key not in PLACED_ELSEWHERE}
    store.keep_all(fields)
    form = RecipeForm(context.dataset, context.model, fields | {LONGEST: context.max_length} | components)
    _restore(context.page, store, {MODEL: context.model} | form.fields)
    with gr.Accordion("The same from a terminal", open=False):
        recipe = _terminal(context.services, form)
    _presets(presets, form.fields)
    _plan(context, form, recipe, [tab.select, *(item.change for item in form.inputs)])
    return form


def _restore(page: gr.Blocks, store: KeptChoices, settings: dict[str, Widget]) -> None:
    def back(values: object) -> Updates:
        kept_values = values if isinstance(values, dict) else {}  # an older version kept a list
        known = {RENAMED.get(name, name): UNSET if value == OLD_UNSET else value for name, value in kept_values.items()}
        return {field: known[name] for name, field in settings.items() if name in known} or gr.skip()

    store.restore(page, back, list(settings.values()))


def _presets(buttons: Sequence[gr.Button], fields: dict[str, Widget]) -> None:
    free = {key: field for key, field in fields.items() if not key.startswith("components.")}

    def fill(name: str) -> Updates:
        preset = actions.preset(name, list(free))
        return {free[key]: forms.shown(key, value) for key, value in preset.items()}

    for button in buttons:
        button.click(fill, button, list(free.values()), **QUIET)


def _terminal(services: Services, form: RecipeForm) -> gr.Code:
    """The recipe as a file to copy, and a button that opens one; returns the widget of the recipe."""
    sentence(
        "To start the same run from a terminal of this machine, save this as recipe.yaml and enter: "
        f"hydralora train recipe.yaml --follow{recipes.workspace_option(services)}"
    )
    recipe = gr.Code(language="yaml", interactive=False, show_label=False, elem_id="recipe")
    opened = upload_button("Open a recipe", "open-recipe", (".yaml", ".yml"), 180)

    @handler
    def fill(file: str) -> Updates:
        return form.updates(actions.opened_recipe(services, file, list(form.fields)))

    opened.upload(fill, opened, form.inputs, **QUIET)
    return recipe


def _plan(context: Context, form: RecipeForm, recipe: gr.Code, events: Sequence[Component]) -> None:
    """Show what would be trained, and beside every field its error."""
    services, fields = context.services, form.fields
    flagged = gr.State([])  # keys of the fields with an error beside them
    planned = sentence("", elem_id="plan")

    def outline(before: list[str], dataset_id: str, model: str, *inputs: Component) -> Updates:
        settings = values(fields, inputs)
        wrong = recipes.wrong_in_form(services, dataset_id, model, settings)
        now = [key for key in wrong if key in fields]
        updates: Updates = {flagged: now}
        for key in {*before, *now}:
            field, error = fields[key], wrong.get(key)
            updates[field] = type(field)(info=error or field.info, elem_classes=["wrong"] if error else [])
        try:
            plan = actions.plan(services, dataset_id, model, settings)
            return updates | {planned: say(plan), recipe: actions.recipe_text(services, dataset_id, model, settings)}
        except HydraError as error:
            return updates | {planned: say(str(error))}

    outputs = [flagged, planned, recipe, *fields.values()]
    context.signals.follow(events, outline, [flagged, *form.inputs], outputs)
