"""The page as a whole: it builds, its widgets come from the recipe, and nothing of it is a public endpoint."""

from typing import Any

import gradio as gr
import pytest

from app.forms import values, widget
from app.palette import HEAD_COLOURS, HEAD_MARKS
from app.services import Services
from app.tabs.train import MAIN, MORE
from app.ui import build
from hydralora.recipe import ComponentSettings, DataSettings, TrainingSettings, TunerSettings


def test_the_page_builds_without_public_endpoints(services: Services) -> None:
    page = build(services)
    assert not page.analytics_enabled
    named = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn is not None]
    assert named == []


@pytest.mark.parametrize("key", [key for key, _ in MAIN + MORE])
def test_every_widget_has_its_fields_help_and_default(key: str) -> None:
    with gr.Blocks():
        made = widget(key, "label")
    assert made.info
    assert values([key], [made.value])[key] == _default(key)


def test_zero_in_an_optional_number_is_none() -> None:
    assert values(["tuner.num_heads", "training.seed"], [0, 0]) == {"tuner.num_heads": None, "training.seed": 0}


def test_heads_differ_by_colour_and_by_mark() -> None:
    assert len(set(HEAD_COLOURS)) == len(set(HEAD_MARKS)) == 8


def _default(key: str) -> object:
    section, _, name = key.rpartition(".")
    if not section:
        return "hydralora"
    sections: dict[str, Any] = {
        "data": DataSettings,
        "components": ComponentSettings,
        "tuner": TunerSettings,
        "training": TrainingSettings,
    }
    return sections[section].model_fields[name].default
