"""Components of the workspace's datasets, computed once for each request."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from hydralora.components import Clusters, Component, Encoder, renamed
from hydralora.components.of_recipe import find_components_of_files, read_files_by_model
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.store import DatasetStore
from hydralora.errors import DatasetError
from hydralora.recipe.settings import ComponentSettings

from .cache import ResultCache, ResultKind
from .processes import in_process

CLUSTERS = ResultKind[Clusters]("clusters", keep=12)
FEATURES = ResultKind[Encoder | None]("features", keep=4)


def digest(*values: object) -> str:
    """A short hash of values, which reveals none of them."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ComponentRequest:
    """The settings of a clustering, and the base model whose states may be the features."""

    settings: ComponentSettings
    model: str

    @property
    def features_key(self) -> str:
        """Equal for requests with equal features. A hash, so that no path reaches the page."""
        settings = self.settings
        by = {"model": self.model, "sentence": settings.sentence_model}.get(settings.features, "")
        name = Path(by).name if Path(by).is_absolute() else by  # the workspace may move
        return digest(settings.features, name, settings.text, settings.language, settings.seed)

    @property
    def key(self) -> str:
        """Equal for requests with equal components."""
        k = self.settings.k if self.settings.method == "kmeans" else None
        return digest(self.features_key, self.settings.method, k)


class ComponentFinder:
    """Finds components and caches them."""

    def __init__(self, datasets: DatasetStore, cache: ResultCache) -> None:
        self._datasets = datasets
        self._cache = cache

    def find(self, dataset_id: str, request: ComponentRequest, on_progress: OnProgress = ignore_progress) -> Clusters:
        """A dataset's components. If a model reads the rows, it reads them once."""
        settings, model = request.settings, request.model

        def compute() -> Clusters:
            dataset = self._datasets.get(dataset_id)
            rows = dataset.files, dataset.mapping
            read = None
            if settings.by_model:
                read = self._cache.remember(
                    FEATURES,
                    dataset_id,
                    request.features_key,
                    compute=lambda: in_process(read_files_by_model, *rows, settings, model, on_progress=on_progress),
                )
            return in_process(find_components_of_files, *rows, settings, model, read, on_progress=on_progress)

        return self._cache.remember(CLUSTERS, dataset_id, request.key, compute=compute)

    def are_found(self, dataset_id: str, request: ComponentRequest) -> bool:
        return self._cache.has(CLUSTERS, dataset_id, request.key)

    def found(self, dataset_id: str, request: ComponentRequest) -> Clusters:
        """A dataset's cached components.

        Raises:
            DatasetError: they were never computed, or their computation was stopped.
        """
        clusters = self._cache.get(CLUSTERS, dataset_id, request.key)
        if clusters is None:
            raise DatasetError(
                "The components are not found yet. Open the tab again, or change a setting, to find them."
            )
        return clusters

    def named(self, dataset_id: str, request: ComponentRequest) -> list[Component]:
        """A dataset's components, named by people or else by their terms.

        Raises:
            DatasetError: as `found`.
        """
        components = self.found(dataset_id, request).components
        names = self._datasets.names(dataset_id, request.key)
        return renamed(components, names if names and len(names) == len(components) else None)
