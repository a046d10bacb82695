"""The parts of the Learn page: the formula with its token strip, the sizes, and the predictions."""

import json
from pathlib import Path

import gradio as gr

from hydralora.figures.palette import HEAD_COLOURS

HERE = Path(__file__).parent
STYLE = (HERE / "learn.css").read_text(encoding="utf-8")
FORMULA = """<div class="formula">
<div class="strip" role="listbox" tabindex="0" aria-label="Tokens of the prompt and the answer"></div>
<div class="heading"><h2>y = W x + s Σ g<sub>i</sub>(x) B<sub>i</sub> A x</h2><p class="which" role="status"></p></div>
<div class="picture" role="group" aria-label="The layer's sum for this token" hidden>
<section class="box x"><h3>x</h3><p class="about"></p><p class="norm"></p></section>
<section class="box w"><h3>W</h3><p class="about"></p><p class="norm"></p></section>
<section class="box a"><h3>A</h3><p class="about"></p><p class="norm"></p></section>
<section class="box router"><h3>Router</h3><p class="about"></p><p class="norm"></p></section>
<section class="box heads"><table><thead><tr><th scope="col">head</th><th scope="col">gate g<sub>i</sub></th>
<th scope="col">‖B<sub>i</sub> A x‖</th><th scope="col">adds</th><th scope="col">of ‖W x‖</th></tr></thead>
<tbody></tbody></table></section>
<section class="box y"><h3>y</h3><p class="about"></p><p class="norm"></p><p class="adds"></p></section>
<span class="arrow x-w" aria-hidden="true"></span><span class="arrow x-a" aria-hidden="true"></span>
<span class="arrow x-r" aria-hidden="true"></span><span class="arrow a-h" aria-hidden="true"></span>
<span class="arrow r-h" aria-hidden="true"></span><span class="arrow w-y" aria-hidden="true"></span>
<span class="arrow h-y" aria-hidden="true"></span></div></div>"""
SIZES = '<div class="sizes"></div>'
QUIZ = """<div class="quiz"><p class="note"></p><div class="card"><p class="count"></p><p class="asked"></p>
<p class="expected"></p><div class="guesses" role="group" aria-label="Which head will lead?"></div>
<div class="result" role="status"></div><button type="button" class="onward"></button></div>
<p class="score"></p></div>"""


def formula(elem_id: str) -> gr.HTML:
    """The formula with the numbers of the token that is clicked; its value is a `FormulaValue`, or None."""
    return _part(None, FORMULA, "formula", elem_id)


def sizes(elem_id: str) -> gr.HTML:
    """Adapters by their parts; the value is a `Sizes`, or None."""
    return _part(None, SIZES, "sizes", elem_id)


def quiz(elem_id: str) -> gr.HTML:
    """A question with a button for each head. The value is a `QuizView`, or None.

    Events: `.guess` with `event.head`, -1 for none of them, and `.again`.
    """
    return _part(None, QUIZ, "quiz", elem_id)


def _part(value: object, template: str, script: str, elem_id: str) -> gr.HTML:
    source = (HERE / f"{script}.js").read_text(encoding="utf-8").replace("HEAD_COLOURS", json.dumps(HEAD_COLOURS))
    return gr.HTML(
        value, html_template=template, css_template=STYLE, js_on_load=source, elem_id=elem_id, elem_classes=["bare"]
    )
