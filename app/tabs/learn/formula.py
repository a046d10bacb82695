"""The formula as a picture that holds a token's numbers."""

from collections.abc import Callable, Iterator, Sequence

import gradio as gr

from ...actions.chat import examples as example_actions
from ...actions.chat.examples import ExamplePrompt
from ...actions.learn import formula as actions
from ...page.browser_state import KeptChoices
from ...page.buttons import new_choices
from ...page.context import Context
from ...page.handlers import QUIET, Updates, handler, latest
from ...page.text import say, sentence
from ...services import MODEL_QUEUE
from ...widgets import learn
from ...widgets.chat import chips
from ...widgets.events import told_by
from ...widgets.progress import progress_bar


class Formula:
    """A prompt, its tokens, a layer, and the layer's sum for the token that is chosen."""

    def __init__(self, kept: KeptChoices) -> None:
        self._kept = kept
        self.rows = gr.State([])
        self.chips = chips("learn-chips")
        with gr.Row(elem_id="learn-ask"):
            self.prompt = gr.Textbox(
                show_label=False,
                label="Prompt",
                placeholder="A prompt for the model to read",
                lines=1,
                max_lines=4,
                scale=6,
                elem_id="learn-prompt",
                container=False,
            )
            self.layer = gr.Dropdown(
                [], value=None, show_label=False, label="Layer", elem_id="learn-layer", container=False
            )
            self.compute = gr.Button("Compute", variant="primary", scale=0, min_width=110, elem_id="learn-compute")
        self.status = sentence("", elem_id="learn-status")
        self.bar = progress_bar("learn-progress")
        self.view = learn.formula("formula")
        kept.keep_all({"question": self.prompt, "layer": self.layer})

    def wire(self, context: Context, opened: Sequence[Callable[..., object]]) -> None:
        """Follow the chosen run; read the prompt when it is asked for, and when the run or the layer changes."""
        services, run = context.services, context.run

        @handler
        def take_example(rows: list[ExamplePrompt], event: gr.EventData) -> Updates:
            index = told_by(event).get("index")
            row = rows[index] if isinstance(index, int) and 0 <= index < len(rows) else None
            return {self.prompt: row["question"]} if row else gr.skip()

        @handler
        def arrange(
            run_id: str,
            dataset_id: str,
            question: str,
            before: list[ExamplePrompt],
            layer: str | None,
            stored: dict[str, str] | None,
        ) -> Updates:
            known = actions.layers(services, run_id)
            rows = example_actions.examples(services, run_id, dataset_id) if known else []
            wanted, names = layer or (stored or {}).get("layer"), [module for _, module in known]
            middle = names[len(names) // 2] if names else None  # as good a first one as any
            chosen = wanted if wanted in names else middle
            asked = question or (stored or {}).get("question", "")
            is_old = asked in {row["question"] for row in before} - {row["question"] for row in rows}
            if rows and (is_old or not asked):
                asked = rows[0]["question"]
            return {
                self.chips: rows if known else None,
                self.rows: rows,
                self.layer: new_choices(gr.Dropdown, known, layer, chosen),
            } | ({self.prompt: asked} if asked != question else {})

        arranging = [run, context.dataset, self.prompt, self.rows, self.layer, self._kept.state]
        changes = [*opened, run.change, context.dataset.change]
        arranged = context.signals.follow(changes, arrange, arranging, [self.chips, self.rows, self.layer, self.prompt])
        chosen = self.chips.ask(take_example, self.rows, self.prompt, **QUIET)
        asks = [arranged.then, chosen.then, self.layer.change, self.compute.click, self.prompt.submit]
        self._wire_reading(context, asks)

    def _wire_reading(self, context: Context, asks: Sequence[Callable[..., object]]) -> None:
        services = context.services

        @latest(services, "formula")
        def read(run_id: str, question: str, rows: list[ExamplePrompt], layer: str | None) -> Iterator[Updates]:
            why = actions.why_not(services, run_id)
            if why or not question.strip() or not layer:
                yield {self.status: say(why or actions.NO_QUESTION), self.bar: None, self.view: None}
                return
            try:
                for step in actions.read(services, run_id, question, rows, layer):
                    yield (
                        {self.status: "", self.bar: _bar(step)}
                        if isinstance(step, actions.Waiting)
                        else {self.status: "", self.bar: None, self.view: step}
                    )
            except Exception:
                yield {self.status: "", self.bar: None, self.view: None}
                raise

        inputs = [context.run, self.prompt, self.rows, self.layer]
        context.signals.follow(asks, read, inputs, [self.status, self.bar, self.view], concurrency_id=MODEL_QUEUE)


def _bar(waiting: actions.Waiting) -> dict[str, object]:
    return {"fraction": waiting.fraction, "place": waiting.phase, "left": f"{waiting.seconds:.0f} s"}
