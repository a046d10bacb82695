"""The frame of every page: the bar with the run and its dataset, and the steps at the left."""

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
TEACHING = """<span class="teach"><button type="button" data-opens="tour">Tour</button>
<button type="button" data-opens="present">Present</button>
<button type="button" data-opens="class" aria-pressed="false">Class</button></span>"""  # what they do: app/teaching
BAR = f"""<header class="bar">
<button type="button" class="menu" aria-label="Steps">☰</button>
<strong>HydraLoRA studio</strong>
<div class="field" id="run-name"><span class="dot"></span><select aria-label="Run"></select>
<input hidden maxlength="60" aria-label="Name of the run">
<button type="button" class="rename" aria-label="Rename the run" title="Rename the run" hidden>✎</button>
<small></small></div>
<div class="field dataset"><span>on</span><select aria-label="Dataset"></select></div>
<span class="gap"></span>{TEACHING}
<button type="button" class="theme" aria-label="Light or dark" title="Light or dark">◐</button>
</header>"""
STEPS = f"<nav class='steps' aria-label='Steps'><ol></ol><ul></ul>{TEACHING}</nav>"


def bar(value: object) -> gr.HTML:
    """The bar; its value is a `BarValue` (actions/shell.py).

    Events: `.pick_run` and `.pick_dataset`
    with `event.id`, `.rename` with `event.name`."""
    return _part(value, BAR, "bar.js", "bar")


def stepper(value: object) -> gr.HTML:
    """The steps; their value is a list of `Step`. The browser opens a page by itself."""
    return _part(value, STEPS, "steps.js", "stepper")


def _part(value: object, template: str, script: str, elem_id: str) -> gr.HTML:
    source = (HERE / script).read_text(encoding="utf-8")
    return gr.HTML(value, html_template=template, js_on_load=source, elem_id=elem_id)
