"""Features of texts: TF-IDF, reduced or plain, or the caller's encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.components.tokens import long_tokens, tokens
from hydralora.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Features = Literal["tfidf-svd", "tfidf"]
Encoder = Callable[[Sequence[str]], Any]  # texts -> (rows, dims)
Vectors = Any  # (rows, dims): a numpy array, or scipy's sparse matrix for plain TF-IDF

SVD_DIMS = 50
FIT_ROWS = 20_000  # at most; fitting vocabulary, IDF and SVD to more rows took longer and changed no measurement
VOCABULARY = 50_000  # tokens, the most frequent ones
STOP_WORDS = {"en": "english"}


def fit_features(
    texts: Sequence[str], features: Features | Encoder, seed: int, language: str | None
) -> tuple[Encoder, Vectors]:
    """An encoder for further texts, and the vectors of these: (rows, dims), of length 1.

    "tfidf-svd" gives every token the square root of its IDF, so that the product of two rows has its IDF once (as
    lnc.ltc in SMART's notation does), then takes 50 dimensions. With the full IDF on both sides, rare words and
    phrasings within one kind of text would differ more than the kinds.

    Raises:
        ConfigError: unknown features or language; the encoder's vectors can't be used.
        DatasetError: no text holds a token.
    """
    if callable(features):
        encoder: Encoder = _Checked(features)
        return encoder, encoder(texts)
    if features not in get_args(Features):
        raise ConfigError(
            f"Text features are {features!r}. Choose one of {', '.join(get_args(Features))}, or pass a function."
        )
    if language is not None and language not in STOP_WORDS:
        raise ConfigError(
            f"There are no stop words for language {language!r}. Choose one of {', '.join(STOP_WORDS)}, or none."
        )
    sample = [texts[i] for i in sample_rows(len(texts), FIT_ROWS, seed)]
    with threadpool_limits(1):
        try:
            encoder = _fit_tfidf(sample, language) if features == "tfidf" else _fit_tfidf_svd(sample, seed, language)
        except ValueError as error:
            raise DatasetError(_no_tokens(len(texts), features, language)) from error
        return encoder, encoder(texts)


def _no_tokens(rows: int, features: str, language: str | None) -> str:
    what = "a word of two letters or more" if features == "tfidf" else "a word, number or mark"
    beside = " beside stop words" if language else ""
    other = " Features tfidf-svd read numbers and marks as well." if features == "tfidf" else ""
    return (
        f"None of the {rows} texts holds {what}{beside}, so they can't be clustered.{other} "
        "To train on them, set tuner.num_heads together with tuner.router_init=random."
    )


def remembered(texts: Sequence[str], vectors: Vectors, encode: Encoder) -> Encoder:
    """An encoder that stores the vectors of these texts, and calls `encode` for others.

    Encoding texts with a model takes longer than clustering them.
    """
    return _Remembered({text: i for i, text in enumerate(texts)}, vectors, encode)


@dataclass(frozen=True)
class _Remembered:
    places: dict[str, int]
    vectors: Vectors
    encode: Encoder

    def __call__(self, texts: Sequence[str]) -> Vectors:
        positions = [self.places.get(text) for text in texts]
        return self.encode(texts) if None in positions else self.vectors[positions]


def sample_rows(rows: int, most: int, seed: int) -> np.ndarray:
    """At most `most` row numbers, drawn by seed, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def dense(vectors: Vectors) -> np.ndarray:
    """Sparse vectors reduced to at most 50 dimensions; dense ones unchanged."""
    if isinstance(vectors, np.ndarray):
        return vectors
    if vectors.shape[1] == 1:
        return vectors.toarray()
    from sklearn.decomposition import TruncatedSVD

    with threadpool_limits(1), np.errstate(all="ignore"):
        return TruncatedSVD(min(SVD_DIMS, *vectors.shape), random_state=0).fit_transform(vectors)


@dataclass(frozen=True)
class TokenTable:
    """What tokens rows hold.

    Attributes:
        shares: sublinear token counts of length 1, no IDF: sparse (rows, tokens). Their product is what two rows share.
        present: 1 where a row holds a token: sparse (rows, tokens). All numbers are one token, and tokens of a single
            row are left out.
    """

    shares: "csr_matrix"
    present: "csr_matrix"


def token_table(texts: Sequence[str]) -> TokenTable:
    """The tokens of these texts."""
    from scipy.sparse import csr_matrix, hstack

    counts = _vectorizer(sublinear_tf=True, use_idf=False)
    try:
        shares = counts.fit_transform(texts)
    except ValueError:  # not one token; the caller's encoder may still distinguish such rows
        none = csr_matrix((len(texts), 1))
        return TokenTable(none, none)
    numbers = np.array([name.isdecimal() for name in counts.get_feature_names_out()])
    present = (shares > 0).astype(np.float64).tocsc()
    holds_number = csr_matrix(np.asarray(present[:, numbers].sum(1)) > 0, dtype=np.float64)
    shared = ~numbers & (np.asarray(present.sum(0)).ravel() > 1)
    return TokenTable(shares, hstack([present[:, shared], holds_number]).tocsr())


def _vectorizer(tokenizer: Callable[[str], list[str]] = tokens, **options: Any) -> Any:
    """TF-IDF of these tokens, which are in lower case already."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(tokenizer=tokenizer, token_pattern=None, lowercase=False, max_features=VOCABULARY, **options)


def _fit_tfidf(texts: Sequence[str], language: str | None) -> Encoder:
    return _vectorizer(long_tokens, stop_words=STOP_WORDS.get(language or "")).fit(texts).transform


def _fit_tfidf_svd(texts: Sequence[str], seed: int, language: str | None) -> Encoder:
    from sklearn.decomposition import TruncatedSVD

    tfidf = _vectorizer(sublinear_tf=True, stop_words=STOP_WORDS.get(language or "")).fit(texts)
    tfidf.idf_ = np.sqrt(tfidf.idf_)
    weights = tfidf.transform(texts)
    if weights.shape[1] == 1:  # one token: SVD refuses a single column
        return partial(_dense_tfidf, tfidf)
    svd = TruncatedSVD(min(SVD_DIMS, *weights.shape), random_state=seed)
    with np.errstate(all="ignore"):  # it divides by the variance, which is 0 for equal rows
        svd.fit(weights)
    return partial(_reduced_tfidf, tfidf, svd)


def _dense_tfidf(tfidf: Any, texts: Sequence[str]) -> np.ndarray:
    return tfidf.transform(texts).toarray()


def _reduced_tfidf(tfidf: Any, svd: Any, texts: Sequence[str]) -> np.ndarray:
    from sklearn.preprocessing import normalize

    return normalize(svd.transform(tfidf.transform(texts)))


@dataclass(frozen=True)
class _Checked:
    """The caller's encoder, with vectors checked and scaled to length 1."""

    encoder: Encoder

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        from sklearn.preprocessing import normalize

        vectors = np.asarray(self.encoder(texts))
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
            raise ConfigError(
                f"The encoder returned {vectors.dtype} vectors of shape {vectors.shape} for {len(texts)} texts. "
                f"It must return numbers of shape ({len(texts)}, dims)."
            )
        bad = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(bad):
            raise ConfigError(
                f"The encoder returned {len(bad)} vectors that are not finite, the first for row {bad[0] + 1}. "
                "Check the texts there, or compute in float32."
            )
        return normalize(vectors.astype(np.float32))
