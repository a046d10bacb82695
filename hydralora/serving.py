"""A model loaded for use: a base model, with a run's adapter on it or without."""

from dataclasses import dataclass
from typing import Any

from hydralora.models import BaseModelFiles, find_model, load_adapted, load_base, load_tokenizer
from hydralora.results import hash_adapter
from hydralora.runs import Run


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer; `run` and `adapter_hash` are None where it is the base model alone."""

    files: BaseModelFiles
    model: Any
    tokenizer: Any
    run: Run | None = None
    adapter_hash: str | None = None


def load_run(run: Run) -> Loaded:
    """A run's adapter on its base model.

    Raises:
        ModelError: the run has no adapter yet, or its base model can't be found.
    """
    recipe = run.recipe()
    files = find_model(recipe.model)
    model = load_adapted(files, run.adapter, quantization=recipe.quantization)
    return Loaded(files, model, load_tokenizer(files), run, hash_adapter(run.adapter))


def load_base_model(name: str) -> Loaded:
    """A base model, never adapted.

    Raises:
        ModelError: it can't be found or loaded.
    """
    files = find_model(name)
    return Loaded(files, load_base(files), load_tokenizer(files))
