"""The parts of the Lab page: the studies to choose from, and a study's table."""

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
STYLE = (HERE / "lab.css").read_text(encoding="utf-8")
CARDS = """<div class="studies"><ul class="cards" role="list" aria-label="Studies; choose one to plan it"></ul></div>"""
BEGUN = (
    """<section class="studies begun" hidden><h2>Begun here, or finished already</h2><ul role="list"></ul></section>"""
)
TABLE = """<div class="study-table" tabindex="0" role="region" aria-label="Arms of the study"><table>
<thead><tr></tr></thead><tbody></tbody></table></div>"""
FILES = """<p class="study-files" hidden><a class="html" download>Report (HTML)</a>
<a class="csv" download>Table (CSV)</a></p>"""


def study_cards(elem_id: str) -> gr.HTML:
    """The studies; the value is a `Cards`, or None. Event: `.choose` with `event.name`, a card's."""
    return _part(None, CARDS, "study_cards", elem_id)


def begun_studies(elem_id: str) -> gr.HTML:
    """The studies that were begun; the value is a list of `Begun`. Event: `.open` with `event.id`."""
    return _part([], BEGUN, "begun_studies", elem_id)


def study_table(elem_id: str) -> gr.HTML:
    """A study's arms, each with its runs as dots; the value is a `Table`, or None.

    Event: `.pick` with `event.id`, the run that a person chose.
    """
    return _part(None, TABLE, "study_table", elem_id)


def study_files(elem_id: str) -> gr.HTML:
    """Links to a study's report; the value is the study's id, "" to hide them."""
    return _part("", FILES, "study_files", elem_id)


def _part(value: object, template: str, script: str, elem_id: str) -> gr.HTML:
    source = (HERE / f"{script}.js").read_text(encoding="utf-8")
    return gr.HTML(
        value, html_template=template, css_template=STYLE, js_on_load=source, elem_id=elem_id, elem_classes=["bare"]
    )
