"""The list of all runs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import gradio as gr

SCRIPT = Path(__file__).with_name("run_list.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("run_list.css").read_text(encoding="utf-8")
TEMPLATE = """<div class="run-list"><div class="tools">
<label>Find <input type="search" maxlength="100" placeholder="a name, a dataset, a tag"></label>
<details class="columns"><summary>Columns</summary><div role="group" aria-label="Columns to show"></div></details></div>
<div class="frame"><table><thead><tr></tr></thead><tbody></tbody></table></div>
<p class="none" hidden>No run is here yet. Start one on the Train page.</p></div>"""


@dataclass(frozen=True)
class ListedColumn:
    """A column of the list; only some are shown at first."""

    name: str
    kind: Literal["str", "number"]
    shown: bool


@dataclass(frozen=True)
class ListedRun:
    """A line of the list.

    Attributes:
        name: for people.
        dot: "active", "finished", "failed" or "" (stopped or interrupted).
        fraction: how far it has come, 0 to 1; None where it does not run.
        curve: a few of its losses, in order.
        cells: a value for each column.
    """

    id: str
    name: str
    dot: str
    state: str
    fraction: float | None
    curve: list[float]
    cells: list[str | int | float | None]


def run_list(elem_id: str) -> gr.HTML:
    """The runs; its value is a `list_value`. Event: `.pick` with `event.id`, the run that a person chose.

    A person sorts by a click on a column, finds runs by their words, and chooses the columns; the browser keeps these.
    """
    return gr.HTML(
        None, html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT, elem_id=elem_id, elem_classes=["bare"]
    )


def list_value(columns: Sequence[ListedColumn], runs: Sequence[ListedRun], chosen: str | None) -> dict[str, object]:
    """The value of a `run_list`."""
    return {
        "columns": [asdict(column) for column in columns],
        "runs": [asdict(run) for run in runs],
        "chosen": chosen or "",
    }
