"""The settings of components: the form at the top of the Components page."""

from importlib.util import find_spec

import gradio as gr

from ...actions.recipes import component_settings
from ...page.browser_state import KeptChoices
from ...page.context import Context
from ...page.forms import Widget, values, widget
from ...page.handlers import QUIET, Component, Updates
from ...services.components import ComponentRequest

FEATURES = {
    "tfidf-svd": "words (TF-IDF, reduced)",
    "tfidf": "words (plain TF-IDF, as in the paper)",
    "model": "the base model's states",
    "sentence": "a sentence model",
}
SENTENCE_MODEL = "components.sentence_model"


class ComponentForm:
    """The settings of a run's components; `fields` are their widgets by setting."""

    def __init__(self, context: Context, store: KeptChoices, found: gr.State) -> None:
        """Args: found: the number of components that was found, which is offered where a person wants to set it."""
        self._context = context
        with gr.Accordion("How the components are found", open=False, elem_id="component-settings"):
            self.auto = gr.Checkbox(True, label="Find their number", elem_id="components-auto")
            self.fields = _fields()
        store.keep_all(self.fields)
        self._wire_number(context, found)
        features = self.fields["components.features"]
        context.signals.follow(
            [features.change],
            lambda features: gr.Textbox(visible=features == "sentence"),
            features,
            self.fields[SENTENCE_MODEL],
        )

    def _wire_number(self, context: Context, found: gr.State) -> None:
        """The switch stands for the 0 of the setting, wherever that comes from."""
        k, method, auto = self.fields["components.k"], self.fields["components.method"], self.auto

        def show(number: float | None, method: str) -> Updates:
            given = method == "kmeans"  # DBSCAN finds their number itself
            return {auto: gr.Checkbox(value=not number, visible=given), k: gr.Number(visible=given and bool(number))}

        auto.input(lambda on, found: 0 if on else found or 2, [auto, found], k, **QUIET)
        context.signals.follow([k.change, method.change], show, [k, method], [auto, k])

    @property
    def inputs(self) -> list[Component]:
        """What `request` reads."""
        return [self._context.model, *self.fields.values()]

    @property
    def changes(self) -> list[Component]:
        """The events after which a field is complete: a text is complete when submitted or left."""
        return [event for field in self.fields.values() for event in _settled(field)]

    def request(self, model: str, *inputs: Component) -> ComponentRequest:
        """The request that the form describes.

        Raises:
            ConfigError: a value is out of its range, or a model's name is wrong.
        """
        return component_settings(self._context.services, model, values(self.fields, inputs))


def _settled(field: Widget) -> list[Component]:
    return [field.submit, field.blur] if isinstance(field, gr.Textbox) else [field.change]


def _fields() -> dict[str, Widget]:
    offered = {key: name for key, name in FEATURES.items() if key != "sentence" or find_spec("sentence_transformers")}
    with gr.Row():
        fields = {
            "components.k": widget("components.k", "Components", info="From 2.", visible=False),
            "components.method": widget(
                "components.method",
                "Method",
                names={"kmeans": "k-means", "dbscan": "DBSCAN"},
                info="DBSCAN treats rows outside dense regions as noise.",
            ),
            "components.features": widget(
                "components.features", "Features", names=offered, info="A model reads every row first."
            ),
            "components.text": widget(
                "components.text",
                "Compare rows by",
                names={"question": "the question", "everything": "question and answer"},
                info="Also used for a run's held-out rows.",
            ),
        }
    return fields | {SENTENCE_MODEL: widget(SENTENCE_MODEL, "Sentence model", visible=False)}
