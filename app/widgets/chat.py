"""The parts of the Chat page: the conversation, the mixer, the heatmap and the example prompts."""

import json
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from hydralora.figures.palette import HEAD_COLOURS

from .glossary import with_terms

HERE = Path(__file__).parent
STYLE = (HERE / "chat.css").read_text(encoding="utf-8")
CONVERSATION = """<div class="turns"></div><p class="hint">Ask a question, or click an example. Each token of the answer
gets the colour of the head that leads it. Then press S at a head: it answers alone. Questions unlike the run's rows may
get strange answers.</p><div class="live" role="status" aria-live="polite"></div>"""
MIXER = f"""<div class="mixer"><div class="top"><h3>{with_terms("Heads")}</h3>
<button type="button" class="reset">As trained</button></div>
<p class="caption" role="status"></p><div class="channels"></div>
<template><div class="channel"><span class="name"></span><span class="component"></span><span class="gate"></span>
<span class="track"><span class="bar"></span></span><span class="controls">
<button type="button" class="mute" aria-pressed="false" data-meaning="Mute: it gets no weight.">M</button>
<button type="button" class="solo" aria-pressed="false" data-meaning="Solo: it gets the whole weight.">S</button>
<input type="range" class="level" min="0" max="3" step="0.1" value="1" data-meaning="Level: a factor on its gate.">
<span class="times">×1</span></span></div></template>
<div class="more"><label data-meaning="Below 1 the strongest head gains, above 1 the gates become more alike.">
Router temperature <input type="range" class="heat" min="0.1" max="5" step="0.1" value="1">
<span class="heat-value">1</span></label>
<button type="button" data-flag="uniform" aria-pressed="false"
data-meaning="Every head gets the same gate, as if there were no router.">Equal weights</button>
<button type="button" data-flag="top" aria-pressed="false"
data-meaning="In each layer the head with the largest gate gets the whole weight.">Top-1</button>
<label data-meaning="Steer only these layers, counted from 0.">
Layers <input class="layers" placeholder="all, or 6-12" size="8" maxlength="20"></label></div>
<p class="no-heads">This run has no heads to mix.</p></div>"""
HEATMAP = """<div class="heatmap"><h3>Gates by layer</h3><svg role="img" aria-label="Gates by layer and head"></svg>
<p class="readout"></p><ul class="others" aria-label="Likeliest tokens at this place, before temperature"></ul></div>"""


def conversation(elem_id: str, names: Mapping[str, str]) -> gr.HTML:
    """The turns of a conversation. Its value is {turns: [TurnValue], pending: a question not answered yet, or None}.

    Args:
        names: the columns' names by key, in their order.
    """
    return _part({"turns": [], "pending": None}, CONVERSATION, "conversation", elem_id, COLUMN_NAMES=dict(names))


def mixer(elem_id: str) -> gr.HTML:
    """A channel for each head; its value is a `Heads`, None while they aren't known.

    Event: `.steer` with the settings of `steering_of`.
    """
    return _part(None, MIXER, "mixer", elem_id)


def heatmap(elem_id: str) -> gr.HTML:
    """The gates of the token that the conversation shows, by layer and head."""
    return _part(None, HEATMAP, "heatmap", elem_id)


def chips(elem_id: str) -> gr.HTML:
    """Example prompts; the value is a list of `ExamplePrompt`, None while they aren't known.

    Event: `.ask` with `event.index`.
    """
    return _part(
        None, '<div class="chips needs-run" role="group" aria-label="Example prompts"></div>', "chips", elem_id
    )


def _part(value: object, template: str, script: str, elem_id: str, **constants: object) -> gr.HTML:
    source = (HERE / f"{script}.js").read_text(encoding="utf-8")
    for name, constant in {"HEAD_COLOURS": list(HEAD_COLOURS), **constants}.items():
        source = source.replace(name, json.dumps(constant))
    return gr.HTML(value, html_template=template, css_template=STYLE, js_on_load=source, elem_id=elem_id)
