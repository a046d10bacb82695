"""Tokens and words of a text, in any script.

Words keep their combining marks (vowel signs, accents). Chinese, Japanese, Thai and their neighbours write no spaces
between words: their tokens are n-grams of characters. A Korean word holds its particles, so its n-grams are tokens too.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import regex

# The longest n-grams by script, in characters with their marks.
GRAMS = {"han": 2, "southeast": 3, "hangul": 2}

_HAN = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}ー"
_SOUTHEAST = r"\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}"
_HANGUL = r"\p{Script=Hangul}"
_JOINERS = "\u200c\u200d"  # of zero width, within Persian and Indic words
_ASCII_TOKENS = re.compile(r"\w+|[^\w\s]")
_ASCII_WORDS = re.compile(r"[^\W\d_]{2,}")
_TOKENS = regex.compile(rf"[\p{{L}}\p{{N}}_][\p{{L}}\p{{N}}\p{{M}}_{_JOINERS}]*+|[^\s\p{{L}}\p{{N}}\p{{M}}\p{{Cf}}_]")
_WORDS = regex.compile(rf"\p{{L}}[\p{{L}}\p{{M}}{_JOINERS}]*+")
_SCRIPTS = regex.compile(
    rf"(?V1)(?P<han>(?:[[{_HAN}]&&\p{{L}}]\p{{M}}*+)++)|(?P<southeast>(?:[[{_SOUTHEAST}]&&\p{{L}}]\p{{M}}*+)++)"
    rf"|(?P<hangul>(?:[{_HANGUL}]\p{{M}}*+)++)|(?P<word>(?:[^{_HAN}{_SOUTHEAST}{_HANGUL}]\p{{M}}*+)++|.)"
)
# Thai's and Lao's vowels before and behind a letter are letters by Unicode, but belong to it.
_CHARACTERS = regex.compile(r"[\u0e40-\u0e44\u0ec0-\u0ec4]?\X[\u0e30\u0e32\u0e45\u0eb0\u0eb2\p{M}]*+")


def normalized(text: str) -> str:
    """One spelling of equal text: NFKC in lower case; Thai's and Lao's AM and Turkish's dotted I stay one letter."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    return text.lower().replace("i\u0307", "i")


def tokens(text: str) -> list[str]:
    """A text's words, numbers and marks. Marks are tokens too, or arithmetic would be empty."""
    if text.isascii():
        return _ASCII_TOKENS.findall(text.lower())
    out: list[str] = []
    for token in _TOKENS.findall(normalized(text)):
        if token.isascii():
            out.append(token)
        else:
            for script, part in by_script(token):
                out += _grams(characters(part), GRAMS[script]) if script in GRAMS else [part]
                if script == "hangul" and len(part) > GRAMS[script]:
                    out.append(part)
    return out


def long_tokens(text: str) -> list[str]:
    """A text's words and numbers of two characters or more."""
    return [token for token in tokens(text) if len(token) > 1]


def words(text: str) -> list[str]:
    """A text's words of two letters or more; text without spaces between words is not divided."""
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    out: list[str] = []
    for line in text.splitlines():  # most lines of most files are ASCII, which is read faster
        if line.isascii():
            out += _ASCII_WORDS.findall(line.lower())
        else:
            divided = (word for run in _WORDS.findall(normalized(line)) for word in _divided(run))
            out += [word for word in divided if len(word) > 1]
    return out


def by_script(run: str) -> Iterator[tuple[str, str]]:
    """The parts of a run of letters: "han" (with kana), "southeast", "hangul", or "word" for all other scripts."""
    return ((str(part.lastgroup), part[0]) for part in _SCRIPTS.finditer(run))


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script that writes no spaces between words."""
    return not word.isascii() and next(by_script(word))[0] in ("han", "southeast")


def characters(text: str) -> list[str]:
    """Characters as people count them, each with its marks."""
    return list(text) if text.isascii() else _CHARACTERS.findall(text)


def _grams(units: Sequence[str], longest: int) -> list[str]:
    return ["".join(units[i : i + n]) for n in range(1, longest + 1) for i in range(len(units) - n + 1)]


def _divided(run: str) -> list[str]:
    """A run of letters, cut where scripts without spaces begin or end; Korean and others stay whole."""
    if run.isascii():
        return [run]
    out: list[str] = []
    joined = False
    for script, part in by_script(run):
        spaced = script in ("word", "hangul")
        if spaced and joined:
            out[-1] += part
        else:
            out.append(part)
        joined = spaced
    return out
