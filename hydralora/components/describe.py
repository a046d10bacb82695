"""Descriptions of components: characteristic terms, central rows and outliers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from hydralora.components.features import STOP_WORDS
from hydralora.components.phrases import READ, phrases, without_parts, words_and_phrases
from hydralora.components.tokens import tokens, words
from hydralora.errors import ConfigError

TERMS = 8
NEAREST = 5
OUTLIERS = 5
DESCRIBED_ROWS = 2000  # of each component at most, from which its terms are taken
VOCABULARY = 10_000  # terms, the most frequent ones; each component has a count of each
ENGLISH_SHARE = 0.25  # of stop words among all words
READ_FOR_LANGUAGE = 20_000  # characters of each component


@dataclass(frozen=True)
class Component:
    """One cluster.

    Attributes:
        id: its number, as in the labels.
        name: its first terms; "all rows" where it is the only one.
        size: rows; `share` of all rows, 0 to 1.
        terms: up to 8, by class TF-IDF.
        nearest: up to 5 row numbers, the nearest to its centre first.
        outliers: up to 5 row numbers, the furthest from its centre first, by Euclidean distance of the features.
    """

    id: int
    name: str
    size: int
    share: float
    terms: list[str]
    nearest: list[int]
    outliers: list[int]


def describe(
    texts: Sequence[str], labels: np.ndarray, distances: np.ndarray, seed: int = 0, language: str | None = None
) -> list[Component]:
    """Every component of labels 0, 1, ...; distances are of each row to its component's centre, (rows,)."""
    members = [np.flatnonzero(labels == i) for i in range(labels.max() + 1)]
    terms = class_terms(texts, members, seed, language)
    out = []
    for i, rows in enumerate(members):
        ordered = rows[np.argsort(distances[rows], kind="stable")]
        edge = [int(row) for row in ordered[::-1][:OUTLIERS]]
        middle = [int(row) for row in ordered[:NEAREST]]
        name = (", ".join(terms[i][:3]) if len(members) > 1 else "all rows") or f"component {i + 1}"
        out.append(Component(i, name, len(rows), len(rows) / len(labels), terms[i], middle, edge))
    return out


def renamed(components: Sequence[Component], names: Sequence[str] | None) -> list[Component]:
    """Components with the user's names; an empty name keeps the terms.

    Raises:
        ConfigError: the numbers of names and components differ.
    """
    if names is None:
        return list(components)
    if len(names) != len(components):
        raise ConfigError(f"There are {len(names)} names for {len(components)} components. Give one for each, or none.")
    pairs = zip(components, names, strict=True)
    return [replace(component, name=name.strip() or component.name) for component, name in pairs]


def class_terms(
    texts: Sequence[str], members: Sequence[np.ndarray], seed: int = 0, language: str | None = None
) -> list[list[str]]:
    """Each component's terms by class TF-IDF, as BERTopic (Grootendorst 2022) defines it: its texts are one document.

    A term's weight is tf · log(1 + (A - f + .5) / (f + .5)): its share of the component's words, how often it occurs
    in all, and the mean number of words A in a component. That is BERTopic's BM25 weighting, which reduces frequent
    words more than its plain log(1 + A / f). Where a script has no spaces between words, terms are its phrases
    (`phrases`). Numbers and marks are terms only in a component without words; English stop words are excluded if the
    texts look English.
    """
    rng = np.random.default_rng(seed)
    read = [
        rows if len(rows) <= DESCRIBED_ROWS else rng.choice(rows, DESCRIBED_ROWS, replace=False) for rows in members
    ]
    documents = ["\n".join(texts[row] for row in rows) for rows in read]
    language = language or likely_language(documents)
    analyze = partial(words_and_phrases, phrases=phrases(documents), limit=READ // max(len(documents), 1))
    terms = _weighted(documents, analyze, language)
    if all(terms):
        return terms
    return [few or other for few, other in zip(terms, _weighted(documents, tokens), strict=True)]


def likely_language(texts: Sequence[str]) -> str | None:
    """ "en" where a quarter of the words are English stop words (running English has half), None elsewhere."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    read = [word for text in texts for word in words(text[:READ_FOR_LANGUAGE])]
    stop_words = sum(word in ENGLISH_STOP_WORDS for word in read)
    return "en" if read and stop_words / len(read) >= ENGLISH_SHARE else None


def _weighted(
    documents: Sequence[str], analyze: Callable[[str], list[str]], language: str | None = None
) -> list[list[str]]:
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        tokenizer=analyze,
        token_pattern=None,
        lowercase=False,
        max_features=VOCABULARY,
        stop_words=STOP_WORDS.get(language or ""),
    )
    try:
        counts = counter.fit_transform(documents).toarray()  # (components, terms)
    except ValueError:  # not one such token
        return [[] for _ in documents]
    frequency, average = counts.sum(0), counts.sum(1).mean()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    weights = shares * np.log1p((average - frequency + 0.5) / (frequency + 0.5))
    names = counter.get_feature_names_out()
    ranked = ((str(names[j]) for j in np.argsort(-row, kind="stable") if row[j] > 0) for row in weights)
    return [list(islice(without_parts(terms), TERMS)) for terms in ranked]
