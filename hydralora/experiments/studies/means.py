"""Means over a study's seeds: of a measure, and of loss and exact match by task and component."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from hydralora.runs.records import Record
from hydralora.runs.results import ComponentSummary, RunResults
from hydralora.runs.scores import Score

GroupKind = Literal["task", "component"]


class Mean(Record):
    """A measure over the seeds: mean, standard deviation (None for one seed), and their number."""

    mean: float
    sd: float | None
    n: int


class GroupMeans(Record):
    """Loss and exact match on the reported rows of one task, or of one component by its name."""

    kind: GroupKind
    name: str
    measures: dict[str, Mean]


def mean_of(values: Sequence[float]) -> Mean | None:
    """None where there are no values."""
    if not values:
        return None
    return Mean(mean=statistics.fmean(values), sd=statistics.stdev(values) if len(values) > 1 else None, n=len(values))


def group_means(runs: Iterable[RunResults]) -> list[GroupMeans]:
    """The means over the seeds that have reported rows of a task, or of a component."""
    found: dict[tuple[GroupKind, str], list[Score]] = {}
    for results in runs:
        scores = results.tuned
        for name, score in (scores.per_task if scores else {}).items():
            found.setdefault(("task", name), []).append(score)
        names = _component_names(results.components)
        for number, score in (scores.per_component if scores else {}).items():
            found.setdefault(("component", names.get(number, number)), []).append(score)
    means = {
        group: {
            "loss": mean_of([score.loss for score in scores if score.loss is not None]),
            "exact_match": mean_of([score.exact_match for score in scores]),
        }
        for group, scores in found.items()
    }
    return [
        GroupMeans(kind=kind, name=name, measures={key: mean for key, mean in each.items() if mean})
        for (kind, name), each in means.items()
    ]


def _component_names(components: Sequence[ComponentSummary]) -> dict[str, str]:
    """The components' names by their numbers; of several with one name, the second is its (2)."""
    seen: Counter[str] = Counter()
    names = {}
    for component in components:
        seen[component.name] += 1
        again = f" ({seen[component.name]})" if seen[component.name] > 1 else ""
        names[str(component.id)] = component.name + again
    return names
