"""Services shared by all sessions of the app."""

import sys
import tempfile
import threading
import time
from collections import OrderedDict
from contextlib import AbstractContextManager
from pathlib import Path

from transformers import PretrainedConfig

from hydralora.data.dataset import Dataset
from hydralora.data.store import DatasetStore
from hydralora.errors import HydraError, RunError
from hydralora.inference.model_cache import LoadedModel, ModelCache
from hydralora.models.catalogue import find_model
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import load_config, load_tokenizer
from hydralora.models.types import Tokenizer
from hydralora.recipe.settings import Quantization
from hydralora.runs.events import Event
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.sampled_events import SampledEvents
from hydralora.runs.store import RUN_ID, RunStore

from .answers import Answers
from .cache import ResultCache, ResultKind
from .classes import Classes
from .components import ComponentFinder, digest
from .curves import LossCurves
from .reading import read_files
from .sessions import Sessions
from .studies import Studies

MODEL_QUEUE = "model"  # handlers that use the loaded model wait in one queue
KEPT_EVENTS = 16  # runs whose events stay in memory
QUEUE_SECONDS = 3.0
DATASET = ResultKind[Dataset]("dataset")
TOKENIZER = ResultKind[Tokenizer]("tokenizer")
CONFIG = ResultKind[PretrainedConfig]("config")


class Services:
    """One instance for the whole app, created at its start and passed to every action."""

    def __init__(self, workspace: Path | None = None) -> None:
        self.store = RunStore(workspace)
        self.jobs = JobManager(self.store)
        self.studies = Studies(self.jobs)
        self.datasets = DatasetStore(self.store.workspace)
        self.cache = ResultCache()
        self.curves = LossCurves(self.store)
        self.sessions = Sessions()
        self.answers = Answers()
        self.classes = Classes()
        self.components = ComponentFinder(self.datasets, self.cache)
        self._models = ModelCache()
        self._downloads = tempfile.TemporaryDirectory(prefix="hydralora-", ignore_cleanup_errors=True)
        self._events: OrderedDict[str, SampledEvents] = OrderedDict()
        self._events_lock = threading.Lock()

    def keep_queue(self) -> None:
        """Start waiting runs in turn, and go on with studies, even if the run before was killed and no page is open."""

        def advance() -> None:
            while True:
                try:
                    self.jobs.advance()
                except (OSError, HydraError) as error:  # such as a full disk; it may pass
                    print(f"The queue can't advance: {error}", file=sys.stderr)
                time.sleep(QUEUE_SECONDS)

        threading.Thread(target=advance, name="queue", daemon=True).start()
        self.studies.keep()

    def close(self) -> None:
        """Remove the files that were offered for download."""
        self._downloads.cleanup()

    def download(self, name: str, of: str = "") -> Path:
        """The path of a file offered for download; the file is removed when the app ends.

        Args:
            of: what its content depends on besides the name; each value gets a file of its own.
        """
        folder = Path(self._downloads.name) / digest(of)
        folder.mkdir(exist_ok=True)
        return folder / name

    def read_dataset(self, dataset_id: str) -> Dataset:
        """A dataset of the workspace. Its rows are cached on disk, so keeping it takes no memory."""
        return self.cache.remember(DATASET, dataset_id, compute=lambda: self._read(dataset_id))

    def _read(self, dataset_id: str) -> Dataset:
        stored = self.datasets.get(dataset_id)
        return read_files(stored.files, stored.mapping)

    def run(self, run_id: str) -> Run:
        """A run of this workspace by id. Unlike the command line, the page accepts no folders.

        Raises:
            RunError: there is none.
        """
        if not RUN_ID.fullmatch(str(run_id)):  # a request may hold anything
            raise RunError("There is no such run in this workspace. Choose one from the list.")
        return self.store.get(run_id)

    def events(self, run: Run) -> list[Event]:
        """A run's events so far, of a long one a sample. For a recently used run only new events are read."""
        with self._events_lock:
            events = self._events.pop(run.id, None) or run.sampled_events()
            self._events[run.id] = events
            while len(self._events) > KEPT_EVENTS:
                self._events.popitem(last=False)
            return events.look()

    def loaded(self, run_id: str) -> LoadedModel:
        """A run's tuned model.

        Raises:
            HydraError: there is no such run, it has no adapter yet, or its base model can't be loaded.
        """
        return self._models.run(self.run(run_id))

    def loaded_base(self, run_id: str | None, model: str) -> LoadedModel:
        """A base model, never adapted: a run's, else `model`.

        Raises:
            HydraError: there is no such run, or the model can't be loaded.
        """
        return self._models.base(*self._base_of(run_id, model))

    def base_name(self, run_id: str | None, model: str) -> str:
        """The base model's name: a run's, else `model`."""
        return self._base_of(run_id, model)[0]

    def tokenizer(self, model: str) -> Tokenizer:
        """A base model's tokenizer, without loading the weights.

        Raises:
            ModelError: it is not on this machine, or can't be read.
        """
        return self.cache.remember(TOKENIZER, model, compute=lambda: load_tokenizer(_local(model)))

    def config(self, model: str) -> PretrainedConfig:
        """A base model's configuration.

        Raises:
            ModelError: it is not on this machine, or can't be read.
        """
        return self.cache.remember(CONFIG, model, compute=lambda: load_config(_local(model)))

    def release(self, run_id: str | None = None) -> None:
        """Free the memory of a run's adapter, or of every model, and of results computed from it. Answers in progress
        are completed."""
        self.cache.release(run_id)
        self._models.release(run_id)

    def building_models(self) -> AbstractContextManager[object]:
        """Hold this while a model is built without the services' help, such as an empty one."""
        return self._models.building

    def _base_of(self, run_id: str | None, model: str) -> tuple[str, Quantization]:
        recipe = self.run(run_id).recipe() if run_id else None
        return (recipe.model, recipe.quantization) if recipe else (model, "none")


def _local(model: str) -> BaseModelFiles:
    return find_model(model, download=False)
