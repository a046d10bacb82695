"""The one plot component: every figure of the app is a Plotly figure in it.

`gr.Plot` has no selection events and drops the zoom at every update; this one keeps both.
"""

import html
from pathlib import Path

import gradio as gr

from .events import told_by

AWAITED = "awaited"  # the value of a panel whose figure is being computed
EXPORTS = """<details class="exports" hidden><summary>Save, or show as a table</summary>
<button type="button" data-as="png">PNG</button> <button type="button" data-as="svg">SVG</button>
<button type="button" data-as="html" title="A page that works offline">HTML</button>
<button type="button" data-as="csv">CSV</button>
<details class="as-table"><summary>Table</summary><div></div></details></details>"""
SCRIPT = Path(__file__).with_name("plot.js").read_text(encoding="utf-8")


def plot_panel(
    elem_id: str, label: str, empty: str = "", caption: str = "", fills: bool = False, awaited: bool = False
) -> gr.HTML:
    """A panel; its value is a figure as JSON (`figures`), AWAITED while one is computed, or "" for none.

    Args:
        empty: what is shown where there is no figure.
        caption: the id of the element whose text explains the figure; a saved page includes it.
        fills: whether the figure takes the height of its panel, not its own.
        awaited: whether a figure is being computed from the start.

    Events: `.lasso` with `event.ids` (the customdata of the selected points; empty when deselected) and `.pick` with
    `event.id` (that of a clicked point).
    """
    classes = "plot fills" if fills else "plot"
    return gr.HTML(
        AWAITED if awaited else "",
        html_template=f'<div class="{classes}" role="figure" aria-label="{html.escape(label)}" '
        f'data-empty="{html.escape(empty)}" data-caption="{html.escape(caption)}"></div>{EXPORTS}',
        js_on_load=SCRIPT,
        elem_id=elem_id,
        elem_classes=["plot-panel", *(["fills"] if fills else [])],
    )


def selected_ids(event: gr.EventData) -> list[int]:
    """The customdata of the points chosen by a `lasso` or `pick` event; other values are ignored."""
    data = told_by(event)
    ids = data.get("ids", [data.get("id")])
    return [i for i in ids if isinstance(i, int)] if isinstance(ids, list) else []
