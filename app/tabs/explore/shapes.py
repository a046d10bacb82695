"""Panels for shapes of matrices, and the choice of shapes if there are more than panels."""

from collections.abc import Sequence

import gradio as gr

from ...actions.explore.shapes import PANELS
from ...page.handlers import Updates
from ...widgets.plot import plot_panel


class ShapePanels:
    """A panel for each figure, and the choice of shapes, hidden until there are more shapes than panels."""

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
        """Draw the panels in a row."""
        elem_id, label, caption, count = self._of
        with gr.Row(elem_classes=["shapes"]):
            self.panels = [
                plot_panel(f"{elem_id}-{i}", label, caption=caption, fills=True, awaited=not i) for i in range(count)
            ]

    def figures(self, figures: Sequence[str]) -> Updates:
        """Show these figures, and hide the remaining panels."""
        padded = [*figures, *[""] * (len(self.panels) - len(figures))]
        return {
            panel: gr.HTML(value=figure, visible=bool(figure))
            for panel, figure in zip(self.panels, padded, strict=True)
        }

    def shapes(self, shapes: Sequence[str], drawn: Sequence[str]) -> Updates:
        """The choice among these shapes, of which some are drawn."""
        more = len(shapes) > len(self.panels)
        return {self.choice: gr.Dropdown(choices=list(shapes), value=list(drawn) if more else [], visible=more)}
