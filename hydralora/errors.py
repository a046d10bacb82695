"""Every error that a user can cause: what went wrong, where, what was found, how to fix it."""

import re
from collections.abc import Iterable

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MESSAGE = 4000  # characters of an error's; some name many settings
FOUND = 200  # characters of what was found, in a message
FIRST_LINE = 300  # characters of a library's message


class HydraError(Exception):
    """Base of all errors shown to users as one message, without a traceback, and of bounded length."""

    kind = "error"

    def __init__(self, message: object = "") -> None:
        super().__init__(shortened(printable(str(message)[: 2 * MESSAGE]), MESSAGE))


class ConfigError(HydraError, ValueError):
    """A setting of the adapter or of a recipe is wrong. Also a ValueError, as PEFT's users expect."""

    kind = "config"


class DatasetError(HydraError):
    """A data file can't be used as it is."""

    kind = "dataset"


class ModelError(HydraError):
    """A base model or an adapter can't be found, read or trusted."""

    kind = "model"


class MissingModelError(ConfigError):
    """A run's base model was a folder on another machine, so a model on this machine must be named."""


class RunError(HydraError):
    """A training run doesn't exist, or is in a state that doesn't allow the operation."""

    kind = "run"


def first_line(error: Exception) -> str:
    """An error's first line, without control characters; library errors can be pages or megabytes long."""
    text = str(error)[: 10 * FIRST_LINE].strip()
    return one_line(text.splitlines()[0], FIRST_LINE) if text else type(error).__name__


def system_message(error: OSError) -> str:
    """What the system refused, and where, as a sentence."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or type(error).__name__}. Check its rights, and that the disk is not full."


def printable(text: str) -> str:
    """A text whose control characters a terminal shows and doesn't obey, but for line ends and tabs.

    They could move the cursor, or turn the order of letters around.
    """
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(error: object, most: int = FOUND) -> str:
    """A message as one line of at most so many characters, without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return shortened(" ".join(text.split()), most)


def found(value: object, most: int = FOUND) -> str:
    """A value as a message shows it: at most so many characters, control characters written as escapes."""
    if isinstance(value, str):
        value = value[: most + 1]  # the escapes of a long text are not made
    return shortened(repr(value), most)


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names as a message shows them: "'a', 'b' and 3 more", or "none"."""
    every = list(names)
    shown = ", ".join(found(name, 60) for name in every[:most])
    return f"{shown} and {len(every) - most:,} more" if len(every) > most else shown or "none"


def shortened(text: str, most: int = FOUND) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
