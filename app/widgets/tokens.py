"""The token strip: an answer's tokens, each in the colour of its strongest head."""

from pathlib import Path
from typing import Any

import gradio as gr

from hydralora.figures.palette import HEAD_COLOURS

SCRIPT = Path(__file__).with_name("tokens.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("tokens.css").read_text(encoding="utf-8")
EMPTY: dict[str, Any] = {"answer": "", "tokens": [], "heads": 0}


def token_strip(elem_id: str) -> gr.HTML:
    """An empty strip; its value is {answer: id, tokens: [[text, head, margin]], heads: N}.

    `margin` (0-1) is how far the strongest head leads the second. Event: `.pick` with `event.index`, -1 for none.
    """
    return gr.HTML(
        EMPTY,
        html_template="<div class='legend' aria-hidden='true'></div>"
        "<div class='tokens' role='listbox' aria-label='Tokens of the answer' tabindex='0'></div>",
        css_template=STYLE,
        js_on_load=SCRIPT.replace("HEAD_COLOURS", str(list(HEAD_COLOURS))),
        elem_id=elem_id,
    )
