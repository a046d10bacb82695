"""The number of components that each method finds in repeated trials (the figure of the paper's appendix)."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from hydralora.components.choose_k import kneedle
from hydralora.components.cluster import MAX_K, cluster
from hydralora.components.features import Encoder, Features, fit_features, remembered, sample_rows
from hydralora.data.progress import OnProgress
from hydralora.errors import ConfigError, DatasetError

TrialMethod = Literal["kmeans", "kneedle", "silhouette", "dbscan"]
TRIAL_METHODS: tuple[TrialMethod, ...] = get_args(TrialMethod)
TRIAL_ROWS = 2000  # at most
TRIAL_SHARE = 0.8


def trials(
    texts: Sequence[str],
    count: int = 15,
    methods: Sequence[TrialMethod] = TRIAL_METHODS,
    features: Features | Encoder = "tfidf-svd",
    seed: int = 0,
    max_k: int = MAX_K,
    on_progress: OnProgress | None = None,
    *,
    language: str | None = None,
) -> list[tuple[TrialMethod, list[int]]]:
    """[(method, [number of components in each trial])]; each draws four fifths of the rows, 2,000 at most, by seed + i.

    "kmeans" is this package's rule, "kneedle" the knee of the same SSE curve by Kneedle, "silhouette" the k of its
    highest silhouette, "dbscan" its components, 0 where all rows are noise. An exception in on_progress stops
    the trials.

    Raises:
        ConfigError, DatasetError: as `cluster`; also an unknown method, or a count below 1.
    """
    for method in methods:
        if method not in TRIAL_METHODS:
            raise ConfigError(f"The trials' method is {method!r}. Choose among {', '.join(TRIAL_METHODS)}.")
    if count < 1:
        raise ConfigError(f"The number of trials is {count}. Choose 1 or more.")
    if callable(features):
        features = remembered(texts, fit_features(texts, features, seed, language)[1], features)
    numbers: dict[TrialMethod, list[int]] = {method: [] for method in methods}
    for trial in range(count):
        rows = sample_rows(len(texts), min(TRIAL_ROWS, max(1, round(TRIAL_SHARE * len(texts)))), seed + trial)
        drawn = [texts[i] for i in rows]
        for method, number in _numbers(drawn, methods, features, seed + trial, max_k, language).items():
            numbers[method].append(number)
        if on_progress:
            on_progress(trial + 1, count)
    return list(numbers.items())


def _numbers(
    texts: Sequence[str],
    methods: Sequence[TrialMethod],
    features: Features | Encoder,
    seed: int,
    max_k: int,
    language: str | None,
) -> dict[TrialMethod, int]:
    """One trial: the number of components by each method."""
    out: dict[TrialMethod, int] = {}
    if set(methods) - {"dbscan"}:
        clusters = cluster(texts, None, features, seed, max_k, language=language)
        numbers: dict[TrialMethod, Callable[[], int]] = {
            "kmeans": lambda: clusters.k,
            "kneedle": lambda: kneedle(clusters.sse),
            "silhouette": lambda: max(clusters.silhouette, key=lambda pair: pair[1], default=(1, 0.0))[0],
        }
        out = {method: numbers[method]() for method in methods if method in numbers}
    if "dbscan" in methods:
        try:
            out["dbscan"] = cluster(texts, None, features, seed, method="dbscan", language=language).k
        except DatasetError:
            out["dbscan"] = 0  # all rows are noise
    return out
