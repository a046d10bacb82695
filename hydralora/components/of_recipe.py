"""A dataset's components by the section `components` of a recipe, for runs, the app and the command line."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from hydralora.components import Clusters, Encoder, Features, TrialMethod, cluster, remembered, trials
from hydralora.components.encoders import mean_pooled, sentence_vectors
from hydralora.data.dataset import read_dataset
from hydralora.data.examples import Example
from hydralora.data.mapping import Mapping
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.models.catalogue import find_model
from hydralora.models.device import pick_device
from hydralora.models.loading import load_base, load_tokenizer
from hydralora.recipe.settings import ComponentSettings

STEPS = 1000
EMBEDDING_STEPS = 900  # of them, where a model reads the texts first


def component_texts(examples: Sequence[Example], settings: ComponentSettings) -> list[str]:
    """The text of each row that is clustered."""
    return [example.question if settings.text == "question" else example.everything for example in examples]


def read_by_model(
    examples: Sequence[Example],
    settings: ComponentSettings,
    model: str,
    on_progress: OnProgress = ignore_progress,
) -> Encoder | None:
    """A model's vectors of these rows, whatever the clustering; None if the features are TF-IDF.

    Raises:
        HydraError: the model can't be loaded.
    """
    texts, reading = component_texts(examples, settings), _part(on_progress, 0, EMBEDDING_STEPS)
    if settings.features == "model":
        encode = partial(_states, model)
    elif settings.features == "sentence":
        encode = partial(sentence_vectors, settings.sentence_model)
    else:
        return None
    return remembered(texts, encode(texts, reading), encode)


def find_components(
    examples: Sequence[Example],
    settings: ComponentSettings,
    model: str,
    on_progress: OnProgress = ignore_progress,
    k: int | None = None,
    read: Encoder | None = None,
) -> Clusters:
    """The components of these rows; equal rows and settings give equal components.

    Args:
        model: the base model whose states are the features, where settings.features is "model".
        k: number of components, in place of settings.k; DBSCAN finds the number itself.
        read: the result of `read_by_model` for these rows; None calls it first.

    Raises:
        HydraError: the rows can't be clustered this way, or the model of the features can't be loaded.
    """
    texts = component_texts(examples, settings)
    features: Features | Encoder
    if settings.features == "tfidf-svd" or settings.features == "tfidf":
        features = settings.features
    else:
        features = read or cast(Encoder, read_by_model(examples, settings, model, on_progress))
        on_progress = _part(on_progress, EMBEDDING_STEPS, STEPS)
    return cluster(
        texts,
        None if settings.method == "dbscan" else k or settings.k,
        features,
        settings.seed,
        on_progress=on_progress,
        method=settings.method,
        language=settings.language,
    )


def number_trials(
    examples: Sequence[Example],
    settings: ComponentSettings,
    found: Clusters,
    count: int,
    on_progress: OnProgress = ignore_progress,
) -> list[tuple[TrialMethod, list[int]]]:
    """The number of components that each method finds in repeated trials (`trials`), by the features of `found`."""
    return trials(
        component_texts(examples, settings),
        count,
        features=found.encoder if found.features == "vectors" else found.features,
        seed=settings.seed,
        on_progress=on_progress,
        language=settings.language,
    )


def read_files_by_model(
    files: Sequence[Path], mapping: Mapping | None, settings: ComponentSettings, model: str, on_progress: OnProgress
) -> Encoder | None:
    """`read_by_model` on a dataset's files, for a separate process: all arguments can be pickled."""
    return read_by_model(read_dataset(files, mapping).examples, settings, model, on_progress)


def find_components_of_files(
    files: Sequence[Path],
    mapping: Mapping | None,
    settings: ComponentSettings,
    model: str,
    read: Encoder | None,
    on_progress: OnProgress,
) -> Clusters:
    """`find_components` on a dataset's files, for a separate process; descriptions and silhouettes are computed too."""
    clusters = find_components(read_dataset(files, mapping).examples, settings, model, on_progress, read=read)
    clusters.measure()
    return clusters


def number_trials_of_files(
    files: Sequence[Path],
    mapping: Mapping | None,
    settings: ComponentSettings,
    found: Clusters,
    count: int,
    on_progress: OnProgress,
) -> list[tuple[TrialMethod, list[int]]]:
    """`number_trials` on a dataset's files, for a separate process."""
    return number_trials(read_dataset(files, mapping).examples, settings, found, count, on_progress)


def _states(model: str, texts: Sequence[str], on_progress: OnProgress = ignore_progress) -> np.ndarray:
    """Texts to a base model's states; the model is in memory only while it reads."""
    files = find_model(model)
    return mean_pooled(load_base(files, pick_device()), load_tokenizer(files), on_progress)(texts)


def _part(on_progress: OnProgress, first: int, last: int) -> OnProgress:
    """Progress of one part of the work as progress of the whole."""
    return lambda done, total: on_progress(first + round((last - first) * done / max(total, 1)), STEPS)
