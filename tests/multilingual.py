"""Generated rows of three kinds of task, in many languages: fixtures/languages/*.yaml hold their sentences."""

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "fixtures" / "languages"
LANGUAGES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))  # by their ISO 639-1 codes


@cache
def _language(code: str) -> dict[str, Any]:
    language: dict[str, Any] = yaml.safe_load((FOLDER / f"{code}.yaml").read_text(encoding="utf-8"))
    return language


def sets_of_kinds(code: str) -> tuple[str, ...]:
    """The names of a language's sets of three kinds."""
    return tuple(_language(code)["sets"])


def rows_of_kinds(code: str, kinds: str, rows: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """The texts and the kinds of that many rows of a set of kinds, as many of each kind, in random order."""
    language, rng = _language(code), random.Random(f"{code} {kinds} {rows} {seed}")
    phrasings = language["sets"][kinds]
    slots = {name: items.split("|") for name, items in language["slots"].items()}

    def fill(slot: re.Match[str]) -> str:
        return str(rng.randint(2, 60)) if slot[1] in "nm" else rng.choice(slots[slot[1]])

    tasks = [list(phrasings)[i % len(phrasings)] for i in range(rows)]
    rng.shuffle(tasks)
    return [re.sub(r"{(\w)}", fill, rng.choice(phrasings[task])) for task in tasks], tasks
