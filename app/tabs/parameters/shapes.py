"""Which shapes of matrices are drawn, where there are more than places for their pictures."""

from collections.abc import Sequence

import gradio as gr

from ...actions.parameters.shapes import PANELS
from ...page.handlers import Updates
from ...widgets.plot import plot_panel


class ShapePanels:
    """A place for each picture, and the choice of shapes, hidden until there are more than places."""

    def __init__(self, elem_id: str, label: str, caption: str, count: int = PANELS) -> None:
        self.choice = gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            max_choices=count,
            visible=False,
            label="Shapes",
            elem_id=f"{elem_id}-shapes",
            render=False,
        )
        self._of = elem_id, label, caption, count

    def draw(self) -> None:
        """The pictures, in a row."""
        elem_id, label, caption, count = self._of
        with gr.Row():
            self.panels = [plot_panel(f"{elem_id}-{i}", label, caption=caption) for i in range(count)]

    def figures(self, figures: Sequence[str]) -> Updates:
        """Shows these, and hides the places that are left."""
        padded = [*figures, *[""] * (len(self.panels) - len(figures))]
        return {
            panel: gr.HTML(value=figure, visible=bool(figure))
            for panel, figure in zip(self.panels, padded, strict=True)
        }

    def shapes(self, shapes: Sequence[str], drawn: Sequence[str]) -> Updates:
        """The choice for a view of these shapes, of which some are drawn."""
        more = len(shapes) > len(self.panels)
        return {self.choice: gr.Dropdown(choices=list(shapes), value=list(drawn) if more else [], visible=more)}
