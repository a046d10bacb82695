"""A run's first name, for people: its dataset, its method and a number."""

import re
from collections.abc import Iterable
from pathlib import Path

from hydralora.data.demo import demo_file
from hydralora.data.hub import PREFIX
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.recipe.settings import Recipe

LONGEST_DATASET = 28  # characters of a dataset's name
NUMBER = re.compile(r", run (\d+)$")


def first_name(recipe: Recipe, others: Iterable[str]) -> str:
    """A name such as "Demo, 4 heads, run 3"; its number follows those among the names of `others`."""
    numbers = [int(found[1]) for name in others if (found := NUMBER.search(name))]
    return f"{_dataset(recipe)}, {_method(recipe)}, run {max(numbers, default=0) + 1}"


def _dataset(recipe: Recipe) -> str:
    files = recipe.data.train_files
    first = files[0]
    if first == str(demo_file("train")):
        return "Demo"
    name = first.removeprefix(PREFIX) if first.startswith(PREFIX) else Path(first).name.partition(".")[0]
    short = name if len(name) <= LONGEST_DATASET else f"{name[: LONGEST_DATASET - 1]}…"
    return short if len(files) == 1 else f"{short} and {len(files) - 1} more"


def _method(recipe: Recipe) -> str:
    heads = recipe.tuner.num_heads
    if recipe.has_heads and heads:
        counted = f"{heads} head{'s' if heads > 1 else ''}"
        return counted if recipe.method == "hydralora" else f"{METHOD_NAMES[recipe.method]}, {counted}"
    return METHOD_NAMES[recipe.method]
