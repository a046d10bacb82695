"""What the app's sessions share: stores, jobs, computed components, the loaded model, and recent answers."""

import hashlib
import json
import sys
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydralora.components import Clusters, Component, renamed
from hydralora.components.of_recipe import find_components_of_files, read_files_by_model
from hydralora.data.dataset import Dataset
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.store import DatasetStore
from hydralora.errors import DatasetError, HydraError, RunError
from hydralora.inference.generation import Sampling, Token
from hydralora.inference.model_cache import Loaded, Shelf
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_config, load_tokenizer
from hydralora.recipe.settings import ComponentSettings
from hydralora.runs.events import EventTail
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.store import RUN_ID, RunStore

from .processes import in_process

MODEL_QUEUE = "model"  # handlers that use the loaded model wait in one queue
KEPT_ANSWERS = 64
KEPT_TURNS = 1000
KEPT_TAILS = 16  # runs whose events are at hand
QUEUE_SECONDS = 3.0
KEPT = 32  # results of a kind
KEPT_RESULTS = {  # of those that may take many megabytes
    "clusters": 12,
    "features": 4,
    "map": 12,
    "weights": 8,
    "snapshot": 8,
    "probed": 4,
    "broken down": 2,
    "reader": 2,
}
OF_ADAPTERS = ("weights", "snapshot", "probed")  # large, and read again when asked for


@dataclass(frozen=True)
class Asked:
    """How components are asked for: settings, and the base model whose states may be the features."""

    settings: ComponentSettings
    model: str

    @property
    def features_key(self) -> str:
        """Equal for what gives equal features; a hash, so that no path reaches the page."""
        asked = self.settings
        by = {"model": self.model, "sentence": asked.sentence_model}.get(asked.features, "")
        name = Path(by).name if Path(by).is_absolute() else by  # the workspace may move
        return _digest(asked.features, name, asked.text, asked.language, asked.seed)

    @property
    def key(self) -> str:
        """Equal for what gives equal components."""
        k = self.settings.k if self.settings.method == "kmeans" else None
        return _digest(self.features_key, self.settings.method, k)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@dataclass
class Answer:
    """An answer as it is generated, for looking back at its gates, and to be saved.

    Attributes:
        title: what stands over it.
        name: the column's.
        about: whose it is: base, base_hash, run, adapter_hash, steering (`hydralora.traces.Trace`).
        frozen: the token that is looked at, counted from the prompt's first; None for the newest.
        listed: its tokens, as the page's strip has them.
        load: the sum of its tokens' gates (modules, N), and of how many tokens.
    """

    title: str
    name: str
    modules: list[str]
    messages: list[dict[str, str]]
    about: dict[str, Any]
    sampling: Sampling
    prompt: list[Token] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    frozen: int | None = None
    listed: list[list[Any]] = field(default_factory=list)
    load: tuple[Any, int] = (0.0, 0)


class Services:
    """One for the whole app, made at its start and passed to every action."""

    def __init__(self, workspace: Path | None = None) -> None:
        self.store = RunStore(workspace)
        self.jobs = JobManager(self.store)
        self.datasets = DatasetStore(self.store.workspace)
        self._downloads = tempfile.TemporaryDirectory(prefix="hydralora-", ignore_cleanup_errors=True)
        self._models = Shelf()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._results: OrderedDict[tuple, Any] = OrderedDict()
        self._turns: OrderedDict[tuple[str, str], tuple[int, str | None]] = OrderedDict()
        self._locks: dict[Any, threading.Lock] = {}
        self._tails: OrderedDict[str, EventTail] = OrderedDict()
        self._events_lock = threading.Lock()
        self._shelf = threading.Lock()  # guards the three tables above, never held while computing

    def read_dataset(self, dataset_id: str) -> Dataset:
        """A dataset of the workspace; what was read once lies in the cache, so this takes no memory to keep."""
        return self.remember(("data", dataset_id), lambda: self.datasets.get(dataset_id).read())

    def keep_queue(self) -> None:
        """Start waiting runs when their turn comes, even where the run before them was killed and no page is open."""

        def look() -> None:
            while True:
                try:
                    self.jobs.advance()
                except (OSError, HydraError) as error:  # a full disk, for one; it may pass
                    print(f"The queue can't go on: {error}", file=sys.stderr)
                time.sleep(QUEUE_SECONDS)

        threading.Thread(target=look, name="queue", daemon=True).start()

    def close(self) -> None:
        """Remove the files that were offered for download."""
        self._downloads.cleanup()

    def download(self, name: str, of: str = "") -> Path:
        """Where a file that a page offers is written; all of them are gone when the app ends.

        Args:
            of: what it depends on beside its name; another one is another file.
        """
        folder = Path(self._downloads.name) / _digest(of)
        folder.mkdir(exist_ok=True)
        return folder / name

    def clusters(self, dataset_id: str, asked: Asked, on_progress: OnProgress = ignore_progress) -> Clusters:
        """A dataset's components, computed once for each way to ask for them; a model reads the rows once for all."""
        settings, model = asked.settings, asked.model

        def compute() -> Clusters:
            dataset = self.datasets.get(dataset_id)
            rows = dataset.files, dataset.mapping
            read = None
            if settings.by_model:
                read = self.remember(
                    ("features", dataset_id, asked.features_key),
                    lambda: in_process(read_files_by_model, *rows, settings, model, on_progress=on_progress),
                )
            return in_process(find_components_of_files, *rows, settings, model, read, on_progress=on_progress)

        return self.remember(("clusters", dataset_id, asked.key), compute)

    def has_clusters(self, dataset_id: str, asked: Asked) -> bool:
        return self.remembers(("clusters", dataset_id, asked.key))

    def found_clusters(self, dataset_id: str, asked: Asked) -> Clusters:
        """A dataset's components that are at hand.

        Raises:
            DatasetError: they are not, since nobody asked for them, or their search was stopped.
        """
        if not self.has_clusters(dataset_id, asked):
            raise DatasetError(
                "The components are not found yet. Open the tab again, or change a setting, to find them."
            )
        return self.clusters(dataset_id, asked)

    def components(self, dataset_id: str, asked: Asked) -> list[Component]:
        """A dataset's components by the names that they were given, else by their terms."""
        components = self.found_clusters(dataset_id, asked).components
        names = self.datasets.names(dataset_id, asked.key)
        return renamed(components, names if names and len(names) == len(components) else None)

    def remembers(self, key: tuple) -> bool:
        """Whether a result is at hand."""
        with self._shelf:
            return key in self._results

    def remember(self, key: tuple, compute: Callable[[], Any]) -> Any:
        """A result computed once for all sessions; the last few of a kind, the key's first part, are kept."""
        with self._shelf:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._shelf:
                if key in self._results:
                    self._results.move_to_end(key)
                    return self._results[key]
            result = compute()
            with self._shelf:
                self._results[key] = result
                alike = [other for other in self._results if other[0] == key[0]]
                for old in alike[: -KEPT_RESULTS.get(key[0], KEPT)]:
                    del self._results[old]
                    self._locks.pop(old, None)
            return result

    def newest(self, session: str, what: str, of: str | None = None) -> Callable[[], bool]:
        """Begin something anew in a session; the function says whether nothing newer of the kind has begun there.

        Args:
            of: the run that it is about, where `turns_to` shall know.
        """
        with self._shelf:
            turn = self._turns.pop((session, what), (0, None))[0] + 1, of
            self._turns[session, what] = turn
            while len(self._turns) > KEPT_TURNS:
                self._turns.popitem(last=False)
        return lambda: self._turns.get((session, what), turn) == turn

    def turns_to(self, session: str, what: str, of: str | None) -> bool:
        """Turn to a run, so that nothing begun before is the newest any more; False, and nothing is done, where what
        was begun last is about that run already: a page may tell late of its choice."""
        if of is not None and self._turns.get((session, what), (0, None))[1] == of:
            return False
        self.newest(session, what, of)
        return True

    def run(self, run_id: str) -> Run:
        """A run of this workspace by id; unlike the command line, the page names no folders.

        Raises:
            RunError: there is none.
        """
        if not RUN_ID.fullmatch(run_id):
            raise RunError("There is no such run in this workspace. Choose one from the list.")
        return self.store.get(run_id)

    def loaded(self, run_id: str) -> Loaded:
        """A run's tuned model.

        Raises:
            HydraError: there is no such run, it has no adapter yet, or its base model can't be loaded.
        """
        return self._models.run(self.run(run_id))

    def loaded_base(self, run_id: str | None, model: str) -> Loaded:
        """A base model, never adapted: a run's, else `model`.

        Raises:
            HydraError: there is no such run, or the model can't be loaded.
        """
        return self._models.base(*self._base_of(run_id, model))

    def reader(self, run_id: str | None, model: str) -> tuple[Any, Any]:
        """Its tokenizer and configuration, for which its weights need not be loaded.

        Raises:
            HydraError: it is not on this machine, or can't be read.
        """
        name, _ = self._base_of(run_id, model)

        def read() -> tuple[Any, Any]:
            files = find_model(name, download=False)
            return load_tokenizer(files), load_config(files)

        return self.remember(("reader", name), read)

    def let_go(self, run_id: str | None = None) -> None:
        """Free the memory of a run's adapter, or of every model, and of what was read of them; who is answered just now
        is answered to the end."""
        with self._shelf:
            for key in [key for key in self._results if key[0] in OF_ADAPTERS and run_id in (None, key[1])]:
                del self._results[key]
                self._locks.pop(key, None)
        self._models.let_go(run_id)

    def _base_of(self, run_id: str | None, model: str) -> tuple[str, str]:
        recipe = self.run(run_id).recipe() if run_id else None
        return (recipe.model, recipe.quantization) if recipe else (model, "none")

    def events(self, run: Run) -> list[dict[str, Any]]:
        """A run's events so far; of one that was asked for lately only what is new is read."""
        with self._events_lock:
            tail = self._tails.pop(run.id, None) or run.follow_events()
            self._tails[run.id] = tail
            while len(self._tails) > KEPT_TAILS:
                self._tails.popitem(last=False)
            return tail.look()

    def keep_answer(self, answer: Answer) -> str:
        """Keep an answer, under an id that can't be guessed."""
        answer_id = uuid.uuid4().hex
        with self._shelf:
            self._answers[answer_id] = answer
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        return answer_id

    def answer(self, answer_id: str | None) -> Answer:
        """An answer kept earlier.

        Raises:
            HydraError: it is not kept any more.
        """
        answer = self._answers.get(answer_id or "")
        if answer is None:
            raise HydraError("This answer's gates are no longer kept. Ask again to see them.")
        return answer
