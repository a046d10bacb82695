"""Values in rows: as text, as no text, and as marks of what is to be learnt."""

import math
import unicodedata
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal

from hydralora.data.problems import RowError, is_whole

# Texts that programs write for "no value": pandas' list (pandas.read_csv, na_values). A mapping may give another one.
MISSING = (
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
)
BLANK_CATEGORIES = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # control and format characters, zero-width ones among them; spaces
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # fillers, and Braille's empty cell
GOOD = {"true", "1", "1.0", "yes", "good", "desirable", "chosen", "accepted", "positive", "correct"}
BAD = {"false", "0", "0.0", "-1", "-1.0", "no", "bad", "undesirable", "rejected", "negative", "incorrect"}
LONGEST = 1_000_000  # characters of a row; tokenising more takes gigabytes
HALF = ("holds bytes or half a character that can't be written as UTF-8", "Save the file as UTF-8, or drop the row.")


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that Python has none for, such as a year past 9999."""

    reason: str


def text_of(value: object, column: str, missing: tuple[str, ...] = MISSING) -> str:
    """A value as text; "" where it holds none.

    Numbers, dates and booleans are written as Python's csv module and pandas write them, so that one table gives the
    same rows in every format.

    Raises:
        RowError: it is a list or an object, or can't be written as UTF-8.
    """
    if value is None or (isinstance(value, (float, Decimal)) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        if not is_scalar(value):
            raise RowError("wrong-type", column, f"holds {kind_of(value)}", "Write text.")
        value = str(value)
    refuse_long(len(value), column)
    if is_blank(value) or value.strip() in missing:
        return ""
    if not is_whole(value):
        raise RowError("undecodable", column, *HALF)
    return value


def refuse_long(characters: int, column: str = "") -> None:
    """
    Raises:
        RowError: a row has more characters than are read.
    """
    if characters > LONGEST:
        raise RowError("too-long", column, f"has {characters:,} characters", f"At most {LONGEST:,} are read. Split it.")


def is_scalar(value: object) -> bool:
    """Whether a value that is no text has one usual way to be written."""
    return isinstance(value, (bool, int, float, Decimal, date, time))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return all(unicodedata.category(c) in BLANK_CATEGORIES or c in BLANK_LETTERS for c in text)


def is_mark(value: object) -> bool:
    """Whether a value can mark something as good or bad."""
    return str(value).strip().lower() in GOOD | BAD


def is_bad(value: object) -> bool:
    """Whether a value marks something as bad, or as not to be learnt: false, 0 or below, or a word for it."""
    weight = weight_of(value)
    return weight <= 0 if weight is not None else str(value).strip().lower() in BAD


def weight_of(value: object) -> float | None:
    """A weight as a number; None if it is none."""
    if not isinstance(value, (str, int, float)):
        return None
    try:
        weight = float(value)
    except (ValueError, OverflowError):
        return None
    return weight if math.isfinite(weight) else None


def kind_of(value: object) -> str:
    """A value's JSON type, in words."""
    if isinstance(value, Unreadable):
        return f"a value that can't be read ({value.reason})"
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")
