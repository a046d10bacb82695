"""What the model sees of the rows: lengths in tokens, and a first batch."""

import gradio as gr

from hydralora.errors import HydraError
from hydralora.recipe.settings import TrainingSettings

from ...actions import as_read
from ...page.context import Context
from ...page.handlers import Updates, latest
from ...page.text import explain, reading_help, say, sentence
from ...widgets.batch import batch_view
from ...widgets.plot import AWAITED, plot_panel


class AsTheModelSeesIt:
    """A first batch, its explanation, and below the fold the lengths and the chat template."""

    def __init__(self, context: Context) -> None:
        self._context = context
        with gr.Column(elem_id="as-seen", scale=2, min_width=320):
            sentence("What the model sees", elem_classes=["group"])
            self.batch = batch_view("batch")
            self.reading = reading_help("", "batch-sentence")

    def draw_more(self) -> None:
        """Draw what stands below the rows."""
        with gr.Accordion("Lengths in tokens, and the chat template", open=False, elem_id="lengths-and-template"):
            self.counts = sentence("", elem_id="tokens-sentence")
            self.lengths = plot_panel(
                "lengths", "Rows by their length in tokens", caption="tokens-sentence", awaited=True
            )
            self.checks = gr.Dataframe(
                headers=as_read.CHECK_COLUMNS,
                column_widths=["28%", "24%", "48%"],
                wrap=True,
                interactive=False,
                max_height=420,
                elem_id="template-checks",
                label="The base model's chat template",
            )

    def awaited(self) -> Updates:
        """What it shows of a dataset whose rows are still to be read: nothing of the one before."""
        return self._updates(as_read.nothing_read("Being read …", AWAITED))

    def wire(self, viewed: gr.events.Dependency) -> None:
        """Fill it after the dataset is shown, and when the model or the longest row changes."""
        context = self._context

        @latest(context.services, "as the model sees it")
        def read(dataset_id: str, model: str, max_length: float) -> Updates:
            try:
                view = as_read.tokens(
                    context.services, dataset_id, model, int(max_length or TrainingSettings().max_length)
                )
            except HydraError as error:
                view = as_read.nothing_read(str(error))
            return self._updates(view)

        inputs = [context.dataset, context.model, context.max_length]
        context.signals.follow(
            [viewed.success, context.model.change, context.max_length.change], read, inputs, self.outputs
        )

    @property
    def outputs(self) -> list[gr.HTML | gr.Dataframe]:
        return [self.counts, self.lengths, self.reading, self.batch, self.checks]

    def _updates(self, view: as_read.TokenView) -> Updates:
        return {
            self.counts: say(view.sentence),
            self.lengths: view.lengths,
            self.reading: explain(view.batch_sentence),
            self.batch: view.batch,
            self.checks: view.checks,
        }
