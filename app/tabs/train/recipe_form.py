"""The form of a run: a card for each decision, all other settings, errors beside the fields, the recipe as a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from hydralora.errors import HydraError
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.settings import RENAMED

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
from ...widgets.copied_text import copied_text

HEADS, STEPS = "tuner.num_heads", "training.max_steps"
MODEL = "model"
LONGEST = "training.max_length"
PLACED_ELSEWHERE = (HEADS, STEPS, LONGEST, "data.eval", "data.mapping", "data.task_column")
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
    "tuner.use_rslora": "rsLoRA",
    "tuner.virtual_tokens": "Virtual tokens",
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
UNSET_WORDS = {HEADS: "one for each component", STEPS: "by epochs"}  # of a setting without a value, in a sentence


@dataclass(frozen=True)
class RecipeForm:
    """Dataset, base model and the recipe's settings, as handlers take them."""

    dataset: gr.Textbox
    model: gr.Dropdown
    fields: dict[str, Widget]  # by setting
    setup: gr.Accordion  # around the whole form
    actions: gr.Column  # where the buttons that start a run are drawn

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
        return updates | {field: forms.shown(key, value) for (key, field), value in pairs} | self.unfolded

    @property
    def unfolded(self) -> Updates:
        """Show the form, which is folded to one line otherwise."""
        return {self.setup: gr.Accordion(open=True)}


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


def _widget(key: str, **more: object) -> Widget:
    return widget(key, LABELS.get(key), NAMES.get(key), min_width=200, **more)


def build(context: Context, tab: gr.Tab, store: KeptChoices, components: dict[str, Widget]) -> RecipeForm:
    """Draw the form. The widgets of `components` belong to another tab; these, the base model's and that of
    `max_length` are stored in the browser where they are created."""
    with gr.Accordion("New run", open=not context.services.store.all(), elem_id="setup") as setup:
        cards = _Cards(context)
        planned = sentence("", elem_id="plan", elem_classes=["off"])
        start = gr.Column(elem_id="start-row")
        with gr.Accordion("More settings", open=False):
            fields = cards.fields | _other_settings(context)
        with gr.Accordion("The same from a terminal", open=False):
            recipe, opened = _terminal(context.services)
    store.keep_all(fields)
    fields |= {LONGEST: context.max_length}
    form = RecipeForm(context.dataset, context.model, fields | components, setup, start)
    _restore(context.page, store, {MODEL: context.model} | form.fields)
    _open_recipe(context.services, form, opened)
    changes = [tab.select, *(item.change for item in form.inputs)]
    cards.wire(context.services, form, lambda *listener: context.signals.follow(changes, *listener))
    _plan(context, form, recipe, planned, changes)
    # The page is built once: with a run that came later it opens folded all the same.
    context.page.load(lambda: gr.Accordion(open=not context.services.store.all()), None, setup, **QUIET)
    return form


def _other_settings(context: Context) -> dict[str, Widget]:
    fields: dict[str, Widget] = {}
    for group, keys in GROUPS.items():
        sentence(group, elem_classes=["group"])
        with gr.Row(elem_classes=["settings"]):
            if group == "Training":
                context.max_length.render()
            fields |= {key: _widget(key) for key in keys if key not in PLACED_ELSEWHERE}
    return fields


class _Cards:
    """A card for each decision: the base model, the number of heads, the length."""

    def __init__(self, context: Context) -> None:
        with gr.Row(elem_id="cards", equal_height=True):
            with gr.Column(min_width=220, elem_classes=["card"]):
                context.model.render()
                self.device = sentence("", elem_id="device")
            with gr.Column(min_width=220, elem_classes=["card"]):
                heads = _widget(HEADS, info="0: one for each component.")
                self.heads_line = sentence("", elem_id="heads-line")
            with gr.Column(min_width=220, elem_classes=["card"]):
                steps = _widget(STEPS, info="One step uses a batch of rows. 0: by epochs.")
                self.time = sentence("", elem_id="time")
        with gr.Column(elem_classes=["card"], elem_id="presets"):
            sentence("Or let a preset set the length and what belongs to it. It changes nothing but what stands here.")
            self.presets = {name: _Preset(name) for name in PRESETS}
        self.fields: dict[str, Widget] = {HEADS: heads, STEPS: steps}

    def wire(self, services: Services, form: RecipeForm, follow: Callable[..., object]) -> None:
        """Keep the sentences true, and let a preset fill the form.

        Args:
            follow: calls a function after any change of the form.
        """

        def describe(dataset_id: str, model: str, *inputs: Component) -> Updates:
            settings = values(form.fields, inputs)
            try:
                return {
                    self.device: say(actions.device_line()),
                    self.heads_line: say(actions.heads_line(services, dataset_id, model, settings)),
                    self.time: say(actions.duration(services, dataset_id, model, settings)),
                }
            except HydraError:  # the error is shown beside its field
                return {self.heads_line: "", self.time: ""}

        def preview(dataset_id: str, model: str, *inputs: Component) -> Updates:
            settings = values(form.fields, inputs)
            return {
                preset.effect: say(preset.sentence(services, dataset_id, model, settings))
                for preset in self.presets.values()
            }

        follow(describe, form.inputs, [self.device, self.heads_line, self.time])
        follow(preview, form.inputs, [preset.effect for preset in self.presets.values()])
        for preset in self.presets.values():
            preset.wire(form)


class _Preset:
    """A button that fills the form, and beside it what it would change."""

    def __init__(self, name: str) -> None:
        self._name = name
        with gr.Row(elem_classes=["preset"]):
            self._button = gr.Button(name, size="sm", scale=0, min_width=104)
            self.effect = sentence("", elem_id=f"preset-{name.lower().replace(' ', '-')}")

    def sentence(self, services: Services, dataset_id: str, model: str, settings: recipes.FormSettings) -> str:
        """What it would change, and how long the run would then take."""
        changes = actions.preset_changes(self._name, settings)
        if not changes:
            return "As the form is now."
        changed = settings | {change.key: change.after for change in changes}
        texts = [f"{_label(key)} {_value(key, before)} → {_value(key, after)}" for key, before, after in changes]
        try:
            about = actions.duration(services, dataset_id, model, changed)
        except HydraError:  # the error is shown beside its field
            about = ""
        return f"{', '.join(texts)}. {about}".strip()

    def wire(self, form: RecipeForm) -> None:
        fields = {key: form.fields[key] for key in actions.PRESET_KEYS}

        def fill(*inputs: Component) -> Updates:
            preset = actions.preset(self._name, values(fields, inputs))
            return {fields[key]: forms.shown(key, value) for key, value in preset.items()}

        self._button.click(fill, list(fields.values()), list(fields.values()), **QUIET)


def _label(key: str) -> str:
    return LABELS.get(key, key.rpartition(".")[2].replace("_", " ").capitalize())


def _value(key: str, value: object) -> str:
    """A setting's value in a sentence."""
    if value is None:
        return UNSET_WORDS.get(key, "none")
    return f"{value:g}" if isinstance(value, float) else f"{value}{' tokens' if key == LONGEST else ''}"


def _restore(page: gr.Blocks, store: KeptChoices, settings: dict[str, Widget]) -> None:
    def back(values: object) -> dict[str, object]:
        kept_values: dict[str, object] = values if isinstance(values, dict) else {}  # an older version kept a list
        return {RENAMED.get(name, name): UNSET if value == OLD_UNSET else value for name, value in kept_values.items()}

    store.restore(page, back, settings)


def _terminal(services: Services) -> tuple[gr.HTML, gr.UploadButton]:
    """The recipe as a file to copy, and a button that opens one."""
    sentence(
        "To start the same run from a terminal of this machine, save this as recipe.yaml and enter: "
        f"hydralora train recipe.yaml --follow{recipes.workspace_option(services)}"
    )
    recipe = copied_text("recipe.yaml", "recipe")
    return recipe, upload_button("Open a recipe", "open-recipe", (".yaml", ".yml"), 180)


def _open_recipe(services: Services, form: RecipeForm, opened: gr.UploadButton) -> None:
    @handler
    def fill(file: str) -> Updates:
        return form.updates(actions.opened_recipe(services, file, list(form.fields)))

    opened.upload(fill, opened, [*form.inputs, form.setup], **QUIET)


def _plan(context: Context, form: RecipeForm, recipe: gr.HTML, planned: gr.HTML, events: Sequence[Component]) -> None:
    """Show what would be trained, and beside every field its error."""
    services, fields = context.services, form.fields
    flagged = gr.State([])  # keys of the fields with an error beside them

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
            text = actions.recipe_text(services, dataset_id, model, settings)
            shown = gr.HTML(say(plan), elem_classes=["sentence", "off"])  # the line of the folded form says it too
            return updates | {planned: shown, recipe: text, form.setup: gr.Accordion(f"New run ({plan.rstrip('.')})")}
        except HydraError as error:
            return updates | {planned: gr.HTML(say(str(error)), elem_classes=["sentence"])}

    outputs = [flagged, planned, recipe, form.setup, *fields.values()]
    context.signals.follow(events, outline, [flagged, *form.inputs], outputs)
