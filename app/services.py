"""What the app's sessions share: stores, jobs, computed components, the loaded model, and recent answers."""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydralora.clustering import Clusters, Features, cluster
from hydralora.data.formats import DataFile
from hydralora.data.store import DatasetStore
from hydralora.errors import HydraError
from hydralora.generation import Token
from hydralora.jobs import JobManager
from hydralora.runs import RunStore
from hydralora.serving import Loaded, load_base_model, load_run

KEPT_ANSWERS = 64
KEPT_RESULTS = 16


@dataclass
class Answer:
    """An answer as it was generated, for looking back at its gates. `frozen`: the token looked at, or None."""

    modules: list[str]
    tokens: list[Token] = field(default_factory=list)
    frozen: int | None = None


class Services:
    """One for the whole app, made at its start and passed to every action."""

    def __init__(self, workspace: Path | None = None) -> None:
        self.store = RunStore(workspace)
        self.jobs = JobManager(self.store)
        self.datasets = DatasetStore(self.store.workspace)
        self.model_lock = threading.RLock()  # held in each forward pass: switching the adapter off is global to a model
        self._loading = threading.Lock()
        self._loaded: tuple[Any, Loaded] | None = None
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._results: OrderedDict[Any, Any] = OrderedDict()
        self._computing = threading.Lock()

    def read_dataset(self, dataset_id: str) -> DataFile:
        return self.remember(("data", dataset_id), lambda: self.datasets.get(dataset_id).read())

    def clusters(self, dataset_id: str, k: int | None, features: Features) -> Clusters:
        texts = [example.question for example in self.read_dataset(dataset_id).examples]
        return self.remember(("clusters", dataset_id, k, features), lambda: cluster(texts, k, features))

    def remember(self, key: Any, compute: Callable[[], Any]) -> Any:
        """A result computed once for all sessions; the last few are kept."""
        with self._computing:
            if key not in self._results:
                self._results[key] = compute()
            self._results.move_to_end(key)
            while len(self._results) > KEPT_RESULTS:
                self._results.popitem(last=False)
            return self._results[key]

    def loaded(self, run_id: str | None, model: str) -> Loaded:
        """A run's tuned model, or the base model alone where there is no run with an adapter; one stays loaded."""
        run = self.store.get(run_id) if run_id else None
        if run and not run.has_adapter:
            run = None
        key = (run.id, run.state()["adapter_hash"]) if run else (None, model)
        with self._loading:
            if self._loaded is None or self._loaded[0] != key:
                self._loaded = None  # its memory first
                self._loaded = (key, load_run(run) if run else load_base_model(model))
            return self._loaded[1]

    def new_answer(self, modules: list[str]) -> tuple[str, Answer]:
        """A place to keep an answer, under an id that can't be guessed."""
        answer_id, answer = uuid.uuid4().hex, Answer(modules)
        self._answers[answer_id] = answer
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return answer_id, answer

    def answer(self, answer_id: str | None) -> Answer:
        """An answer kept earlier.

        Raises:
            HydraError: it is not kept any more.
        """
        if not answer_id or answer_id not in self._answers:
            raise HydraError("This answer's gates are no longer kept. Ask again to see them.")
        return self._answers[answer_id]
