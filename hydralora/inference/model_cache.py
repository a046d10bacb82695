"""A cache of loaded models: a base model, and runs' adapters on it."""

import copy
import gc
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from peft import PeftModel

from hydralora.inference.traces import AnswerSource
from hydralora.models.adapters import hash_adapter, is_whole_model, load_adapted, put_adapter, read_adapter_config
from hydralora.models.catalogue import find_model
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import Quantization, load_base, load_tokenizer
from hydralora.models.types import Tokenizer
from hydralora.runs.run import Run
from hydralora.tuner.steering import Steering

KEPT_ADAPTERS = 4


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer; `run` and `adapter_hash` are None for the base model alone.

    Hold `lock` in each forward pass, since recording or steering of gates affects every pass through the model.
    """

    files: BaseModelFiles
    model: Any
    tokenizer: Tokenizer
    run: Run | None = None
    adapter_hash: str | None = None
    lock: AbstractContextManager[object] = field(default_factory=threading.RLock)

    def source(self, steering: Steering | None = None) -> AnswerSource:
        """The source of its answers, with or without steering."""
        base = self.files.describe()
        return AnswerSource(base.id, base.hash, self.run.id if self.run else None, self.adapter_hash, steering)


def load_run(run: Run) -> LoadedModel:
    """A run's adapter on its base model, or the whole model that it trained.

    Raises:
        ModelError: the run has no adapter yet, or its base model can't be found.
    """
    recipe = run.recipe()
    files = find_model(recipe.model)
    model = load_adapted(files, run.adapter, quantization=recipe.quantization)
    return LoadedModel(files, model, load_tokenizer(files), run, hash_adapter(run.adapter))


def load_base_model(name: str) -> LoadedModel:
    """A base model without an adapter.

    Raises:
        ModelError: it can't be found or loaded.
    """
    files = find_model(name)
    return LoadedModel(files, load_base(files), load_tokenizer(files))


class ModelCache:
    """One base model at a time, and the last few adapters on it.

    Each adapter is on a copy of the base model's modules that shares its weights. It takes only the memory of its own
    weights, the base model stays unchanged, and several adapters can answer side by side.

    Attributes:
        building: held while a model is built. transformers changes its own classes meanwhile, so that a model built in
            another thread would not share the weights of its two embeddings.
    """

    def __init__(self) -> None:
        self._base: tuple[tuple[str, str], LoadedModel] | None = None
        self._adapted: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()
        self.building = threading.Lock()

    def base(self, name: str, quantization: Quantization = "none") -> LoadedModel:
        """A base model without an adapter.

        Raises:
            ModelError: it can't be found or loaded.
        """
        with self.building:
            return self._load_base(name, quantization)

    def run(self, run: Run) -> LoadedModel:
        """A run's adapter, on its base model.

        Raises:
            ModelError: the run has no adapter yet, or its base model can't be found.
        """
        if not is_whole_model(run.adapter):
            read_adapter_config(run.adapter)  # before minutes of loading
        recipe, adapter_hash = run.recipe(), hash_adapter(run.adapter)
        with self.building:
            base = self._load_base(recipe.model, recipe.quantization)
            loaded = self._adapted.pop((run.id, adapter_hash), None)
            if loaded is None:
                if is_whole_model(run.adapter):
                    self._release_whole_models()
                model = put_adapter(base.files, sharing_copy(base.model), run.adapter)
                loaded = LoadedModel(base.files, model, base.tokenizer, run, adapter_hash)
            self._adapted[run.id, adapter_hash] = loaded
            while len(self._adapted) > KEPT_ADAPTERS:
                self._adapted.popitem(last=False)
            return loaded

    def release(self, run_id: str | None = None) -> None:
        """Release a run's adapters, or everything; the memory is freed once no caller uses them."""
        import torch

        with self.building:
            for key in [key for key in self._adapted if run_id in (None, key[0])]:
                del self._adapted[key]
            if run_id is None:
                self._base = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # else a run on the same GPU can't use memory that PyTorch caches

    def _release_whole_models(self) -> None:
        """They share no weights with the base model, so one at a time is kept."""
        whole = [key for key, loaded in self._adapted.items() if not isinstance(loaded.model, PeftModel)]
        for key in whole:
            del self._adapted[key]

    def _load_base(self, name: str, quantization: Quantization) -> LoadedModel:
        if self._base is None or self._base[0] != (name, quantization):
            self._adapted.clear()
            self._base = None  # so that its memory is freed first
            files = find_model(name)
            loaded = LoadedModel(files, load_base(files, quantization=quantization), load_tokenizer(files))
            self._base = (name, quantization), loaded
        return self._base[1]


def sharing_copy(model: Any) -> Any:
    """A copy of a model's modules with the same parameters and buffers, not copies of them."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
