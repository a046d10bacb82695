"""The studies as cards, the size of the chosen one, and what it takes."""

from collections.abc import Iterator

import gradio as gr

from hydralora.errors import HydraError

from ...actions.lab import cards as card_actions
from ...actions.lab import plan as actions
from ...page.browser_state import KeptChoices
from ...page.buttons import action_button, upload_button
from ...page.context import Context
from ...page.handlers import QUIET, Component, Updates, handler, latest
from ...page.text import say, sentence
from ...widgets.events import told_by
from ...widgets.lab import begun_studies, study_cards

LOOK_SECONDS = 5.0  # between looks at the studies that were begun
NONE = "Choose a question above. A study answers it by many runs, and says how sure the answer is."
NO_PRICE = "Start"


class Choosing:
    """Cards, sizes, price and start. `column` holds all of it."""

    def __init__(self, kept: KeptChoices) -> None:
        self._kept = kept
        with gr.Column(elem_classes=["off"]):
            self.name = gr.Textbox("", label="Chosen study", elem_id="lab-chosen")
        self._read = gr.State("")  # the key of the price that stands on the page
        self._timer = gr.Timer(LOOK_SECONDS)
        with gr.Column(elem_id="lab-choosing") as self.column:
            self.cards = study_cards("lab-cards")
            with gr.Column(elem_id="lab-plan"):
                with gr.Row(elem_id="lab-sizes"):
                    self.quick = action_button("Quick look", "lab-quick", 130)
                    self.whole = action_button("Whole study", "lab-whole", 130)
                    self.seeds = self._number("Seeds", "lab-seeds", actions.WHOLE["seeds"])
                    self.steps = self._number("Steps of a run", "lab-steps", actions.WHOLE["steps"])
                    self.rows = self._number("Rows reported", "lab-rows", actions.WHOLE["rows"])
                    self.start = gr.Button(
                        NO_PRICE, variant="primary", elem_id="lab-start", interactive=False, scale=0, min_width=240
                    )
                self.price = sentence(NONE, elem_id="lab-price")
                self.arms = gr.CheckboxGroup([], label="Arms", elem_id="lab-arms", visible=False)
            self.begun = begun_studies("lab-begun")
            with gr.Row(elem_id="lab-own"):
                self.upload = upload_button("Upload a study (YAML)", "lab-upload", (".yaml", ".yml"), 200)
                self.told = sentence("", elem_id="lab-told")
            with gr.Accordion("The runs, and how long each takes", open=False, elem_id="lab-runs"):
                self.lines = gr.Dataframe(
                    headers=actions.COLUMNS, wrap=True, interactive=False, elem_id="lab-lines", label="Runs"
                )
        kept.keep_all({"study": self.name, "seeds": self.seeds, "steps": self.steps, "rows": self.rows})

    def _number(self, label: str, elem_id: str, value: int) -> gr.Number:
        return gr.Number(value, label=label, precision=0, elem_id=elem_id, min_width=120)  # the study knows its range

    @property
    def _sizes(self) -> list[Component]:
        return [self.seeds, self.steps, self.rows]

    def wire(self, context: Context, tab: gr.Tab, study: gr.Textbox) -> None:
        fields: dict[str, Component] = {
            "study": self.name,
            "seeds": self.seeds,
            "steps": self.steps,
            "rows": self.rows,
        }
        self._kept.restore(context.page, None, fields)
        self._wire_cards(context, tab, study)
        self._wire_price(context, tab, study)
        self._wire_start(context, study)

    def _wire_cards(self, context: Context, tab: gr.Tab, study: gr.Textbox) -> None:
        services = context.services
        shown = gr.State(None)  # what is offered on the page, so that only changes are sent

        def show(name: str, before: object) -> Updates:
            now = [card_actions.cards(services, name), card_actions.begun(services)]
            return gr.skip() if now == before else {self.cards: now[0], self.begun: now[1], shown: now}

        @handler
        def choose(event: gr.EventData) -> str:
            return str(told_by(event).get("name", ""))

        @handler
        def open_study(event: gr.EventData) -> str:
            return services.studies.get(str(told_by(event).get("id", ""))).id

        @handler
        def upload(file: str) -> Updates:
            try:
                name = card_actions.upload(services, file)
            except HydraError as error:  # it stays beside the button until another file comes
                return {self.told: say(str(error))}
            return {self.name: name, self.told: ""}

        changes = [tab.select, self.name.change, study.change, self._timer.tick]
        context.signals.follow(changes, show, [self.name, shown], [self.cards, self.begun, shown])
        self.cards.choose(choose, None, self.name, **QUIET)
        self.begun.open(open_study, None, study, **QUIET)
        self.upload.upload(upload, self.upload, [self.name, self.told], **QUIET)

    def _wire_price(self, context: Context, tab: gr.Tab, study: gr.Textbox) -> None:
        """The price of what is chosen, anew after each change."""
        services = context.services

        @handler
        def offer(name: str) -> Updates:
            arms = actions.arms(services, name)
            return {self.arms: gr.CheckboxGroup(choices=arms, value=arms, visible=bool(arms))}

        @latest(services, "price of a study")
        def price(name: str, dataset_id: str, model: str, *size: Component) -> Iterator[Updates]:
            waiting = {self.start: gr.Button(NO_PRICE, interactive=False), self._read: "", self.lines: []}
            if not name:
                yield waiting | {self.price: say(NONE)}
                return
            try:
                for step in actions.cost(services, name, dataset_id, model, actions.Size(*size)):
                    if isinstance(step, str):
                        yield waiting | {self.price: say(step)}
                    else:
                        start = gr.Button(step.button, interactive=True)
                        found = {self.start: start, self._read: step.key, self.lines: step.lines}
                        yield found | {self.price: say(step.sentence)}
            except HydraError as error:  # beside the fields, until one of them is changed
                yield waiting | {self.price: say(str(error))}

        context.signals.follow([self.name.change], offer, self.name, self.arms)
        inputs = [self.name, context.dataset, context.model, *self._sizes, self.arms]
        changes = [tab.select, study.change, *(field.change for field in inputs)]
        context.signals.follow(changes, price, inputs, [self.start, self._read, self.lines, self.price])
        for button, size in ((self.quick, actions.QUICK), (self.whole, actions.WHOLE)):
            values = [size["seeds"], size["steps"], size["rows"]]
            button.click(None, None, self._sizes, js=f"() => {values}", **QUIET)

    def _wire_start(self, context: Context, study: gr.Textbox) -> None:
        services = context.services

        @handler
        def begin(key: str, name: str, dataset_id: str, model: str, *size: Component) -> Updates:
            return {study: actions.begin(services, name, dataset_id, model, actions.Size(*size), key)}

        inputs = [self._read, self.name, context.dataset, context.model, *self._sizes, self.arms]
        self.start.click(begin, inputs, study, api_visibility="private")
