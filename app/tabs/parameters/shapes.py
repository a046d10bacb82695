"""Which shapes of matrices are drawn, where there are more than places for their pictures."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ...actions.parameters.points import PANELS


def shapes_choice(elem_id: str) -> gr.Dropdown:
    """Hidden until `shapes_update` finds more shapes than are drawn at once."""
    return gr.Dropdown(
        [], value=[], multiselect=True, max_choices=PANELS, visible=False, label="Shapes", elem_id=elem_id
    )


def shapes_update(shapes: Sequence[str], drawn: Sequence[str]) -> dict[str, Any]:
    """The choice for a view of these shapes, of which some are drawn."""
    more = len(shapes) > PANELS
    return gr.update(choices=list(shapes), value=list(drawn) if more else [], visible=more)
