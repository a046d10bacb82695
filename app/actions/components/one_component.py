"""One component in detail: its name, typical rows, outliers and row lengths."""

from dataclasses import dataclass

from hydralora import figures
from hydralora.components import Clusters, Component
from hydralora.data.statistics import TokenStatistics, token_statistics
from hydralora.errors import DatasetError
from hydralora.recipe.settings import TrainingSettings

from ...services import Services
from ...services.cache import ResultKind
from ...services.components import ComponentRequest
from ..reading import Cell, row_cells, tokenizer_of

COLUMNS = ["", "row", "question", "answer", "task"]
LENGTHS = ResultKind[TokenStatistics]("component lengths")


@dataclass(frozen=True)
class ComponentView:
    """What the page shows of one component; `given` is the name that a person gave it, if any."""

    given: str
    terms: str
    sentence: str
    rows: list[list[Cell]]
    lengths: str


def component(
    services: Services, dataset_id: str, request: ComponentRequest, number: int, model: str, max_length: int
) -> ComponentView:
    """One component: typical rows, outliers, and row lengths in a base model's tokens.

    Raises:
        HydraError: the base model's name is wrong.
    """
    clusters = services.components.found(dataset_id, request)
    cluster = component_of(clusters, number)
    names = services.datasets.names(dataset_id, request.key) or []
    examples = services.read_dataset(dataset_id).examples
    chosen = [("typical", i) for i in cluster.nearest] + [
        ("outlier", i) for i in cluster.outliers if i not in cluster.nearest
    ]
    sentence, lengths = _lengths(services, dataset_id, request, number, model, max_length)
    return ComponentView(
        given=names[number - 1] if len(names) == clusters.k else "",
        terms=", ".join(cluster.terms),
        sentence=f"{cluster.size:,} rows, {cluster.share:.0%} of all. {sentence}",
        rows=[[kind, *row_cells(examples[i])] for kind, i in chosen],
        lengths=lengths,
    )


def component_of(clusters: Clusters, number: int) -> Component:
    """A component by its number, from 1.

    Raises:
        DatasetError: there are fewer components.
    """
    if not 1 <= number <= clusters.k:
        raise DatasetError(f"There is no component {number} any more: there are {clusters.k}. Choose one of them.")
    return clusters.components[number - 1]


def _lengths(
    services: Services, dataset_id: str, request: ComponentRequest, number: int, model: str, max_length: int
) -> tuple[str, str]:
    """A sentence on the tokens of a component's rows, and their histogram; "" if the model is elsewhere."""
    tokenizer, name = tokenizer_of(services, model)
    if tokenizer is None:
        return "Their lengths in tokens are shown once the base model is on this machine.", ""
    examples = services.read_dataset(dataset_id).examples

    def measure() -> TokenStatistics:
        labels = services.components.found(dataset_id, request).labels
        rows = [examples[i] for i in (labels == number - 1).nonzero()[0].tolist()]
        return token_statistics(tokenizer, rows, max_length, TrainingSettings().batch_size)

    statistics = services.cache.remember(LENGTHS, dataset_id, request.key, number, name, max_length, compute=measure)
    share = f"{statistics.answer_share:.0%} of their tokens are answers"
    return (
        f"A row has {statistics.median:.0f} tokens (median) and at most {statistics.longest}; {share}.",
        figures.token_lengths(statistics.histogram, max_length),
    )
