"""A recipe's rows: reading, clustering and holding out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hydralora.components import Clusters, one_component, renamed
from hydralora.components.of_recipe import component_texts, find_components
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.examples import Example
from hydralora.data.mapping import load_mapping
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.split import Split, split, split_by_file
from hydralora.errors import ConfigError, DatasetError, HydraError
from hydralora.recipe.settings import Recipe


def read_split(recipe: Recipe) -> Split:
    """Training and held-out rows: two files, or one that is split by seed.

    Raises:
        HydraError: a file can't be used, or there are too few rows.
    """
    data = read_rows(recipe)
    by_component = recipe.data.stratify == "component" and not recipe.data.eval
    return _split(recipe, data, components_of(recipe, data.examples) if by_component else None)


def read_used(recipe: Recipe) -> Split:
    """A run's training and held-out rows: `read_split`, or its rows of one component if the recipe sets one.

    Raises:
        HydraError: as `read_split`; or the component has too few rows.
    """
    if not recipe.components.only:
        return read_split(recipe)
    data = read_rows(recipe)
    return split_with_components(recipe, data, components_of(recipe, data.examples))[0]


def split_with_components(
    recipe: Recipe, data: Dataset, clusters: Clusters
) -> tuple[Split, dict[int, int], dict[int, int]]:
    """The rows that are used, and the component of each training and each held-out row by its number."""
    rows = _split(recipe, data, clusters)
    component = dict(zip((row.row for row in data.examples), clusters.labels.tolist(), strict=True))
    heldout_component = dict(
        zip((row.row for row in rows.heldout), _nearest(recipe, clusters, rows.heldout), strict=True)
    )
    if recipe.components.only:
        parts = (rows.train, component), (rows.heldout, heldout_component)
        train, heldout = _one_component(recipe.components.only, clusters.k, *parts)
        rows = replace(rows, train=train, heldout=heldout)
    return rows, component, heldout_component


def components_of(recipe: Recipe, examples: Sequence[Example], on_progress: OnProgress = ignore_progress) -> Clusters:
    """The components of a training file's rows, as many as heads if these start from them and have a given number.

    Rows that can't be clustered are one component, unless a setting depends on the components.

    Raises:
        HydraError: they can't be clustered; or DBSCAN finds more or fewer components, or the rows have more or fewer
            tasks, than there are heads.
    """
    tuner, settings = recipe.tuner, recipe.components
    on_components = recipe.has_heads and (recipe.heads_are_components or not tuner.num_heads)
    asked_for = settings.only or settings.names or recipe.data.stratify == "component"
    heads = None if settings.only or not recipe.has_heads else tuner.num_heads
    if _labels(recipe) == "tasks":
        return _by_task(recipe, examples, on_progress)
    try:
        clusters = find_components(examples, settings, recipe.model, on_progress, k=heads)
    except (ConfigError, DatasetError):
        if on_components or asked_for:
            raise
        return one_component(component_texts(examples, settings))
    if on_components and tuner.num_heads not in (None, clusters.k):
        raise ConfigError(
            f"DBSCAN finds {clusters.k} components, but tuner.num_heads is {tuner.num_heads}. Leave num_heads out, "
            "choose components.method=kmeans, or set tuner.router_init=random."
        )
    return clusters.relabelled(_exchanged(recipe, clusters.labels)) if _labels(recipe) == "shuffled" else clusters


def _labels(recipe: Recipe) -> str:
    """Whose components are used: those found, unless heads stand for others."""
    return recipe.components.labels if recipe.heads_are_components else "found"


def _exchanged(recipe: Recipe, labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """The rows' labels, exchanged between the rows at random."""
    return np.random.default_rng(recipe.components.seed).permutation(labels)


def _by_task(recipe: Recipe, examples: Sequence[Example], on_progress: OnProgress) -> Clusters:
    """The rows' own tasks as their components, in alphabetical order; a row without one is in none."""
    names = sorted({example.task for example in examples if example.task})
    if len(names) < 2:
        raise DatasetError(
            f"components.labels is tasks, but the rows have {len(names)} different tasks. Name their column in "
            "data.task_column, or set components.labels to found."
        )
    if recipe.tuner.num_heads not in (None, len(names)):
        raise ConfigError(
            f"components.labels is tasks, of which the rows have {len(names)}, but tuner.num_heads is "
            f"{recipe.tuner.num_heads}. Leave num_heads out."
        )
    settings = recipe.components.model_copy(update={"method": "kmeans"})
    found = find_components(examples, settings, recipe.model, on_progress, k=len(names))
    number = {name: i for i, name in enumerate(names)}
    return found.relabelled(np.array([number.get(example.task or "", -1) for example in examples]), names)


def read_rows(recipe: Recipe, file: str | None = None) -> Dataset:
    """The rows of the training file, or of another file with the same mapping.

    Raises:
        DatasetError: it can't be used.
    """
    data = recipe.data
    mapping = load_mapping(Path(data.mapping)) if data.mapping else None
    return read_dataset(file or data.train, mapping, data.task_column)


def _split(recipe: Recipe, dataset: Dataset, clusters: Clusters | None) -> Split:
    """Training and held-out rows of a dataset; its clusters are needed to stratify by component."""
    data, seed = recipe.data, recipe.training.seed
    if data.eval:
        return split_by_file(dataset, read_rows(recipe, data.eval))
    groups: Sequence[object] | None = None
    if data.stratify == "task":
        groups = dataset.tasks
        if groups is None:
            raise DatasetError(
                f"{dataset.name}: no row has a task. Name data.task_column, or set data.stratify to none."
            )
    elif data.stratify == "component" and clusters:
        groups = clusters.labels.tolist()
    return split(dataset, data.eval_fraction, seed, groups)


def _nearest(recipe: Recipe, clusters: Clusters, rows: Sequence[Example]) -> list[int]:
    """The component of each of these rows, which were not clustered."""
    if clusters.names is None:
        found = clusters.assign(component_texts(rows, recipe.components))
        return _exchanged(recipe, found).tolist() if _labels(recipe) == "shuffled" else found
    number = {name: i for i, name in enumerate(clusters.names)}
    for row in rows:
        if row.task not in number:
            raise DatasetError(
                f"Held-out row {row.row}: its task is {(row.task or 'missing')[:200]!r}, which no training row has. "
                "Leave it out, or set components.labels to found."
            )
    return [number[row.task or ""] for row in rows]


def _one_component(
    number: int, k: int, *parts: tuple[list[Example], dict[int, int]]
) -> tuple[list[Example], list[Example]]:
    """One component's training and held-out rows, from all of them and the component of each by row number."""
    if number > k:
        raise ConfigError(f"components.only is {number}, but there are {k} components. Choose a number from 1 to {k}.")
    train, heldout = ([row for row in rows if component[row.row] == number - 1] for rows, component in parts)
    if not train or not heldout:
        raise DatasetError(
            f"Component {number} has {len(train)} training and {len(heldout)} held-out rows. Choose a larger one, or, "
            "where no file of held-out rows is given, set data.stratify to component."
        )
    return train, heldout


def one_of_each(recipe: Recipe, on_progress: OnProgress = ignore_progress) -> list[tuple[str, Example]]:
    """A held-out row of each of a recipe's components that has one, with the component's name.

    Raises:
        HydraError: the rows are missing, or can't be clustered.
    """
    heldout = read_used(recipe).heldout
    labels, names, why = label_rows(recipe, heldout)
    if labels is None:
        raise HydraError(why or "The components are not known.")
    return [(name, heldout[labels.index(i)]) for i, name in enumerate(names) if i in labels]


def label_rows(recipe: Recipe, examples: Sequence[Example]) -> tuple[list[int] | None, list[str], str | None]:
    """The component of each row and the components' names; or None and the reason: the training rows may be missing."""
    try:
        clusters = components_of(recipe, read_rows(recipe).examples)
        names = [component.name for component in renamed(clusters.components, recipe.components.names)]
        return _nearest(recipe, clusters, examples), names, None
    except HydraError as error:
        return None, [], str(error)
