"""The scripts that a dataset's rows are written in."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import regex

SECOND = 0.1  # share of the rows in a second script from which on a dataset is said to mix them
FEW = 3  # letters of another script that a Latin row may hold
MIXED = "more than one script in a row"
_LATIN_PHRASE = regex.compile(r"\p{Script=Latin}+(?:[^\p{L}]+\p{Script=Latin}+){2}")
_SHORT = {"CJK": "Han", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "FULLWIDTH": "Latin", "HALFWIDTH": "Japanese"}


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """The share of each script in the rows that hold letters, the largest first; `MIXED` where a row is not clear."""
    counts = Counter(script for text in texts if (script := script_of(text)))
    return {script: count / counts.total() for script, count in counts.most_common()}


def script_of(text: str) -> str | None:
    """The script of most of a text's letters; None if it has no letters.

    Names and terms of one or two Latin words occur in rows of every language, but hardly other letters in a Latin row.
    "Translate this into English" before a Chinese sentence is `MIXED`, of neither language.
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else None
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script(character):
            letters[script] += count
    if letters["Japanese"]:  # its words are in Han, its endings in kana
        letters["Japanese"] += letters.pop("Han", 0)
    if not letters:
        return None
    script, most = letters.most_common(1)[0]
    if script == "Latin":
        return script if letters.total() - most <= FEW else MIXED
    return MIXED if 2 * most < letters.total() or _LATIN_PHRASE.search(text) else script


def script_note(shares: dict[str, float]) -> str:
    """A sentence for a user where at least a tenth of the rows are in a second script, else ""."""
    clear = [script for script, share in shares.items() if script != MIXED and share >= SECOND]
    if len(clear) < 2:
        return ""
    named = ", ".join(f"{share:.0%} {script}" for script, share in shares.items() if share >= 0.005)
    return f"The rows are in several scripts: {named}. Components may follow the language rather than the task."


@lru_cache(maxsize=65536)
def _script(character: str) -> str | None:
    """A letter's script, as the first word of its Unicode name says; None for what is no letter."""
    if not character.isalpha():
        return None
    word = unicodedata.name(character, "").partition(" ")[0]
    return _SHORT.get(word, word.capitalize()) or None
