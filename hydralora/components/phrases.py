"""Words and phrases of text that has no spaces between words, found by their neighbours."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log

from hydralora.components.tokens import by_script, characters, is_unspaced, words

SHORTEST = {"han": 2, "southeast": 3}  # characters with their marks; two of Thai's are rarely a word
LONGEST = 12  # characters with their marks
READ = 100_000  # characters of all texts together
FIXED = 0.8  # share of an n-gram's occurrences before or behind one and the same character that makes it a fragment
PARTICLES = frozenset("的了吗呢吧着是在和与把被请这那")  # no phrase begins or ends with them, or with hiragana


def phrases(texts: Sequence[str]) -> dict[str, int]:
    """How often each n-gram occurs that stands free: what is before and behind it varies.

    That is accessor variety (Feng et al. 2004): a word occurs in several places, a fragment of one beside its rest.
    """
    counts: Counter[str] = Counter()
    parts: dict[str, list[str]] = {}  # an n-gram without its last, and without its first character, unless a particle
    for text in texts:
        for run in unspaced_words(text, READ // len(texts)):
            units, shortest = characters(run), SHORTEST[next(by_script(run))[0]]
            for first in range(len(units)):
                for last in range(first + shortest, min(first + LONGEST + 1, len(units)) + 1):
                    gram = "".join(units[first:last])
                    counts[gram] += 1
                    if gram not in parts:
                        ends = (units[first:last], -1, slice(None, -1)), (units[first:last], 0, slice(1, None))
                        parts[gram] = ["".join(each[rest]) for each, end, rest in ends if not _is_particle(each[end])]
    longer: Counter[str] = Counter()  # occurrences of the most frequent n-gram with one more character
    for gram, count in counts.items():
        for part in parts[gram]:
            longer[part] = max(longer[part], count)
    return {
        gram: count
        for gram, count in counts.items()
        if count > 1 and longer[gram] < FIXED * count and not _is_particle(gram[0]) and not _is_particle(gram[-1])
    }


def words_and_phrases(text: str, phrases: Mapping[str, int], limit: int) -> list[str]:
    """A text's words, and the phrases that divide what has no spaces; of that at most `limit` characters are read."""
    spaced = [word for word in words(text) if not is_unspaced(word)]
    return spaced + [phrase for run in unspaced_words(text, limit) for phrase in _divide(run, phrases)]


def without_parts(terms: Iterable[str]) -> Iterator[str]:
    """These terms, without those of unspaced scripts that hold, or are part of, one before."""
    kept: list[str] = []
    for term in terms:
        if not is_unspaced(term) or not any(term in other or other in term for other in kept):
            kept.append(term)
            yield term


def unspaced_words(text: str, limit: int) -> Iterator[str]:
    """The runs of letters of scripts without spaces, until they have this many characters."""
    for line in text.splitlines():
        for word in () if line.isascii() else words(line):
            if limit <= 0:
                return
            if is_unspaced(word):
                limit -= len(word)
                yield word


def _is_particle(character: str) -> bool:
    return character in PARTICLES or "\u3041" <= character[0] <= "\u309f"


def _divide(run: str, phrases: Mapping[str, int]) -> list[str]:
    """The phrases of the most probable division of a run into phrases and single characters, which are left out.

    A phrase's probability is its frequency, a single character's that of a phrase that occurs once.
    """
    units = characters(run)
    total = log(sum(phrases.values()) + 1)
    best: list[tuple[float, int]] = [(0.0, 0)]  # by end: the least cost, and where its last part begins
    for last in range(1, len(units) + 1):
        options = [(best[last - 1][0] + total, last - 1)]
        for first in range(max(last - LONGEST, 0), last - 1):
            count = phrases.get("".join(units[first:last]))
            if count:
                options.append((best[first][0] + total - log(count), first))
        best.append(min(options))
    out: list[str] = []
    last = len(units)
    while last:
        first = best[last][1]
        if last - first > 1:
            out.append("".join(units[first:last]))
        last = first
    return out
