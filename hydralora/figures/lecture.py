"""A lecture: screens of one picture each, and the page that holds them all and needs no network."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from hydralora.errors import ConfigError
from hydralora.figures.pages import COLOURS, ReplayedAnswer, embedded, replay_json, replay_script, replay_style, written
from hydralora.files import to_json

HERE = Path(__file__).parent


@dataclass(frozen=True)
class LectureScreen:
    """One picture of a lecture. All texts are plain text, never HTML.

    Attributes:
        name: its name in addresses.
        page: the page of the app that shows the same.
        figure: a Plotly figure as JSON, "" for none.
        table: the column names, then the rows; () for none.
        answers: answers to one question, side by side; () for none.
        heads: the component that each head has taken, "" for none; () where it isn't known.
    """

    name: str
    page: str
    title: str
    caption: str
    figure: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    answers: tuple[ReplayedAnswer, ...] = ()
    heads: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As `lecture.js` reads it."""
        texts = {"name": self.name, "page": self.page, "title": self.title, "caption": self.caption}
        figure = f'"figure":{self.figure or "null"},"table":{json.dumps(self.table)}'
        answers = f'"answers":{replay_json(self.answers)},"heads":{json.dumps(self.heads)}'
        return f"{to_json(texts)[:-1]},{figure},{answers}}}"


def lecture_script() -> str:
    """The scripts that show a screen; they need `window.Plotly` for figures."""
    return replay_script() + (HERE / "lecture.js").read_text(encoding="utf-8")


def lecture_style() -> str:
    """The styles of a screen."""
    return replay_style() + (HERE / "lecture.css").read_text(encoding="utf-8")


def write_lecture(path: Path, title: str, screens: Sequence[LectureScreen]) -> None:
    """Write a lecture as one page that needs no network: arrow keys go through its screens.

    Raises:
        ConfigError: the file can't be written, or there is no screen.
    """
    if not screens:
        raise ConfigError("There is nothing to save: this lecture has no pictures. Choose a run that has some.")
    parts = {
        "TITLE": html.escape(title),
        "COLOURS": COLOURS,
        "STYLE": lecture_style(),
        "SCRIPT": lecture_script(),
        "PLOTLY": get_plotlyjs(),
        "SCREENS": embedded(f"[{','.join(screen.to_json() for screen in screens)}]"),
    }
    written(path, HERE / "lecture.html", parts)
