"""A run loaded for use: its base model, its adapter and its tokenizer."""

from dataclasses import dataclass
from typing import Any

from hydralora.models import BaseModelFiles, find_model, load_adapted, load_tokenizer
from hydralora.results import hash_adapter
from hydralora.runs import Run


@dataclass(frozen=True)
class LoadedRun:
    """A tuned model, ready to answer."""

    run: Run
    files: BaseModelFiles
    model: Any
    tokenizer: Any
    adapter_hash: str


def load_run(run: Run) -> LoadedRun:
    """Load a run's adapter on its base model.

    Raises:
        ModelError: the run has no adapter yet, or its base model can't be found.
    """
    files = find_model(run.recipe().model)
    model = load_adapted(files, run.adapter)
    return LoadedRun(run, files, model, load_tokenizer(files), hash_adapter(run.adapter))
