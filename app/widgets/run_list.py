"""The list of all runs."""

from pathlib import Path

import gradio as gr

SCRIPT = Path(__file__).with_name("run_list.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("run_list.css").read_text(encoding="utf-8")
TEMPLATE = """<div class="run-list"><div class="tools">
<label>Find <input type="search" maxlength="100" placeholder="a name, a dataset, a tag"></label>
<details class="columns"><summary>Columns</summary><div role="group" aria-label="Columns to show"></div></details></div>
<div class="frame"><table><thead><tr></tr></thead><tbody></tbody></table></div>
<p class="none" hidden>No run is here yet. Start one on the Train page.</p></div>"""


def run_list(elem_id: str) -> gr.HTML:
    """The runs; its value is {columns: [{name, kind, shown}], runs: [ListedRun], chosen: id or ""}.

    Event: `.pick` with `event.id`, the run that a person chose.

    A person sorts by a click on a column, finds runs by their words, and chooses the columns; the browser keeps these.
    """
    return gr.HTML(
        None, html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT, elem_id=elem_id, elem_classes=["bare"]
    )
