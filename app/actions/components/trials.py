"""How stable the number of components is, by several methods in repeated trials."""

from collections.abc import Iterator

from hydralora import figures
from hydralora.components.of_recipe import number_trials_of_files
from hydralora.data.progress import OnProgress

from ...services import Services
from ...services.background import Done, in_background
from ...services.cache import ResultKind
from ...services.components import ComponentRequest
from ...services.processes import in_process

TRIALS = 15
FIGURE = ResultKind[str]("trials")


def trials(services: Services, dataset_id: str, request: ComponentRequest) -> Iterator[str | Done[str]]:
    """Run the trials: yields their progress, then the figure."""
    dataset, clusters = services.datasets.get(dataset_id), services.components.found(dataset_id, request)
    arguments = dataset.files, dataset.mapping, request.settings, clusters, TRIALS

    def work(on_progress: OnProgress) -> str:
        return services.cache.remember(
            FIGURE,
            dataset_id,
            request.key,
            compute=lambda: figures.number_trials(
                in_process(number_trials_of_files, *arguments, on_progress=on_progress)
            ),
        )

    for step in in_background(work):
        yield step if isinstance(step, Done) else f"Trial {min(step.done + 1, TRIALS)} of {TRIALS} …"
