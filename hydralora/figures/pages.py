"""Figures in a self-contained HTML file, which needs no network."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from plotly.io import from_json, to_html
from plotly.offline import get_plotlyjs

from hydralora.errors import ConfigError
from hydralora.figures.palette import HEAD_COLOURS
from hydralora.files import write_text

HERE = Path(__file__).parent
COLOURS = """:root { color-scheme: light dark; --ink: #1f2937; --ink-soft: #4b5563; --line: #d1d5db; --ground: #fff;
    --accent: #1d4ed8; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #f3f4f6; --ink-soft: #b6bdc9; --line: #374151; --ground: #111827; --accent: #60a5fa; }
  }"""  # of a saved page, in the reader's own theme
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 24px auto; padding: 0 16px; color: #1f2937 }}
  figure {{ margin: 24px 0 }}
  figcaption {{ color: #4b5563; max-width: 96ch }}
</style>
<script>{script}</script>
<h1>{title}</h1>
{figures}
</html>
"""


def write_page(path: Path, title: str, figures: Sequence[tuple[str, str]]) -> None:
    """Write figures (JSON, caption) to a file; title and captions are text, not HTML.

    Raises:
        ConfigError: the file can't be written.
    """
    parts = [
        f"<figure>{to_html(from_json(figure), full_html=False, include_plotlyjs=False)}"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for figure, caption in figures
    ]
    text = PAGE.format(title=html.escape(title), script=get_plotlyjs(), figures="\n".join(parts))
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be written ({error.strerror or error}). Give another file.") from error


ReplayedAnswer = tuple[str, str, str]  # its heading, its source in words, its trace as JSON


def write_replay(path: Path, answers: Sequence[ReplayedAnswer]) -> None:
    """Write a self-contained page that replays answers side by side with their gates; it needs no network.

    Args:
        answers: of each its heading, its source in words, and its trace as JSON (`hydralora.inference.traces.Trace`);
            embedded as data, never as markup or script.

    Raises:
        ConfigError: the file can't be written.
    """
    parts = {"STYLE": replay_style(), "SCRIPT": replay_script(), "ANSWERS": embedded(replay_json(answers))}
    written(path, HERE / "replay.html", parts)


def replay_script() -> str:
    """The script that plays answers."""
    return (HERE / "replay.js").read_text(encoding="utf-8").replace("HEAD_COLOURS", json.dumps(HEAD_COLOURS))


def replay_style() -> str:
    """The styles of replayed answers."""
    return (HERE / "replay.css").read_text(encoding="utf-8")


def replay_json(answers: Sequence[ReplayedAnswer]) -> str:
    """Answers as `replay.js` reads them."""
    parts = [
        f'{{"name":{json.dumps(name)},"whose":{json.dumps(whose)},"trace":{trace}}}' for name, whose, trace in answers
    ]
    return f"[{','.join(parts)}]"


def embedded(data: str) -> str:
    """JSON for a script element: no text in the data may end the element that holds it."""
    return data.replace("<", "\\u003c")


def written(path: Path, template: Path, parts: Mapping[str, str]) -> None:
    """Write a page from a template, in which each key stands for its part. What a part holds is never replaced.

    Raises:
        ConfigError: the file can't be written.
    """
    page = template.read_text(encoding="utf-8")
    text = re.sub("|".join(parts), lambda key: parts[key.group()], page)
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be written ({error.strerror or error}). Give another file.") from error
