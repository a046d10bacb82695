"""A report as one page that needs no network: sections of sentences, figures and tables."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from hydralora.figures.pages import COLOURS, embedded, written

TEMPLATE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class ReportSection:
    """A part of a report. All texts are plain text, never HTML.

    Attributes:
        heading: "" for none.
        lead: the sentence that the report is about, "" for none.
        texts: paragraphs above the figure.
        figure: a Plotly figure as JSON, "" for none; `caption` stands below it.
        table: the column names, then the rows; () for none.
    """

    heading: str = ""
    lead: str = ""
    texts: tuple[str, ...] = ()
    figure: str = ""
    caption: str = ""
    table: tuple[tuple[str, ...], ...] = ()


def write_report(path: Path, title: str, sections: Sequence[ReportSection]) -> None:
    """Write a report to a file, in the reader's own theme.

    Raises:
        ConfigError: the file can't be written.
    """
    figures = [section.figure for section in sections if section.figure]
    parts = {
        "TITLE": html.escape(title),
        "COLOURS": COLOURS,
        "SECTIONS": "\n".join(map(_section, sections)),
        "FIGURES": embedded(f"[{','.join(figures)}]"),
        "PLOTLY": get_plotlyjs(),
    }
    written(path, TEMPLATE, parts)


def _section(section: ReportSection) -> str:
    parts = [_element("h2", section.heading), _element("p class='lead'", section.lead)]
    parts += [_element("p", text) for text in section.texts]
    if section.figure:
        parts.append("<div class='figure' role='figure'></div>")
    parts.append(_element("p class='soft'", section.caption))
    if section.table:
        heads, *rows = section.table
        head = "".join(_cell("th", text) for text in heads)
        body = "".join(f"<tr>{''.join(_cell('td', text) for text in row)}</tr>" for row in rows)
        parts.append(f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
    return f"<section>{''.join(parts)}</section>"


def _element(tag: str, text: str) -> str:
    return f"<{tag}>{html.escape(text)}</{tag.split()[0]}>" if text else ""


def _cell(tag: str, text: str) -> str:
    return f"<{tag}>{html.escape(text)}</{tag}>"
