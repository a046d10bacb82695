"""The gates of a token, and its alternatives."""

import gradio as gr

from ...actions.chat import answers as actions
from ...page.handlers import QUIET, Component, Updates, handler
from ...page.text import say, sentence
from ...services import Services
from ...widgets.plot import plot_panel
from .columns import Column

HOW_TO_READ = (
    "Each token has the colour and number of its strongest head; the further that head leads, the stronger the colour. "
    "The base model's tokens have none. Pale tokens are the question's, with the gates used to read them; a token of "
    "the answer has the gates used to choose it. Wavy tokens differ from the unsteered answer. Bars and heatmap follow "
    "the newest token of the first column with gates. Select a token of any column, by mouse or arrow keys, to keep "
    "them on it. A gate is the weight that a head gets, not how much that head changed the answer."
)


class Gates:
    """The gates of the newest token, or of the selected one."""

    def __init__(self) -> None:
        self.reading = sentence("", elem_id="gate-reading")
        with gr.Row():
            self.bars = plot_panel("bars", "Gate of each head", empty="Gates of the newest token are drawn here.")
            self.heatmap = plot_panel(
                "heatmap", "Gates by layer and head", empty="Gates by layer and head are drawn here."
            )
            self.load = plot_panel(
                "load-so-far",
                "Mean gates of the answer, by layer and head",
                empty="The mean of the answer is drawn here.",
            )
        self.alternatives = gr.Dataframe(
            headers=["possible token", "probability"],
            interactive=False,
            visible=False,
            elem_id="weighed",
            label="Most likely tokens here, before temperature",
        )

    @property
    def figures(self) -> list[gr.HTML]:
        return [self.bars, self.heatmap, self.load]

    @property
    def outputs(self) -> list[Component]:
        return [*self.figures, *self.selection]

    @property
    def selection(self) -> list[Component]:
        """The outputs of a selected token, besides its figures."""
        return [self.reading, self.alternatives]

    def drawn(self, gates: actions.GateFigures | None) -> Updates:
        """None leaves the current figures."""
        if gates is None:
            return {}
        return {self.bars: gates.bars, self.heatmap: gates.heatmap, self.load: gates.load}

    def unselected(self) -> Updates:
        """Clear what is shown of a selected token."""
        return {self.reading: "", self.alternatives: gr.Dataframe(visible=False)}

    def wire(self, services: Services, answers: gr.State, columns: dict[str, Column]) -> list[gr.events.Dependency]:
        """Show a selected token of any column; returns the events that may select another answer."""
        events = []
        for key, column in columns.items():

            @handler
            def pick(answer_ids: dict[str, str], event: gr.EventData, key: str = key) -> Updates:
                beside = {other: answer_id for other, answer_id in answer_ids.items() if other != key}
                token = actions.pick(services, answer_ids.get(key, ""), int(event._data["index"]), beside)
                table = gr.Dataframe(value=token.alternatives, visible=bool(token.alternatives))
                return self.drawn(token.gates) | {self.reading: say(token.sentence), self.alternatives: table}

            events.append(column.strip.pick(pick, answers, self.outputs, **QUIET))
        return events
