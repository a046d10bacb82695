"""The Parameters tab: A and the heads of a run as points."""

from dataclasses import dataclass
from typing import Any

from app import figures
from app.services import Services
from hydralora.analysis import head_similarity, matrices, project_matrices
from hydralora.projection import Method

COLUMNS = ["matrix", "layer", "kind", "head", "x", "y"]
PANELS = 3  # more shapes than this are named, not drawn


@dataclass(frozen=True)
class ParametersView:
    sentence: str
    figures: list[str]


def view(services: Services, run_id: str | None, method: Method, colour_by: str) -> ParametersView:
    if not run_id:
        return ParametersView("No run is chosen. Train one first; its A and heads are then drawn here.", [])
    if not services.run(run_id).has_adapter:
        return ParametersView("This run has saved no adapter yet. Its A and heads are drawn when training ends.", [])
    if not services.run(run_id).recipe().has_heads:
        return ParametersView("This run is a plain LoRA: it has no heads to look at. Choose another one.", [])
    groups, similarity = _groups(services, run_id, method)
    drawn, first = [], 0
    for group in groups[:PANELS]:
        drawn.append(figures.matrices(group, colour_by, first))
        first += len(group["points"])
    known = [value for value in similarity.values() if value is not None]
    alike = f" Heads of one layer have a mean cosine of {sum(known) / len(known):.2f} (1: the same)." if known else ""
    several = (
        " Matrices of unlike shape can't be compared, so each shape has a picture of its own: an A is as wide as its "
        "layer's input, a head as its output."
        if len(groups) > 1
        else ""
    )
    left_out = f" {len(groups) - PANELS} more shapes are not drawn." if len(groups) > PANELS else ""
    return ParametersView(
        "Each point is one A or one head, all its numbers projected to two. Near points are alike; the axes, and gaps "
        "between far groups, mean nothing." + several + left_out + alike,
        drawn,
    )


def points(services: Services, run_id: str, method: Method, ids: list[int]) -> list[list[Any]]:
    """The table rows of selected points."""
    if not services.run(run_id).has_adapter:
        return []
    groups, _ = _groups(services, run_id, method)
    everything = [point for group in groups[:PANELS] for point in group["points"]]
    return [
        [
            figures.describe_matrix(point),
            point["layer"],
            point["kind"],
            "" if point["head"] is None else point["head"] + 1,
            round(point["x"], 3),
            round(point["y"], 3),
        ]
        for point in (everything[i] for i in ids if 0 <= i < len(everything))
    ]


def _groups(services: Services, run_id: str, method: Method) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
    """The points of a run's matrices, and how alike the heads of each module are."""

    def compute() -> tuple[list[dict[str, Any]], dict[str, float | None]]:
        model = services.loaded(run_id, "").model
        return project_matrices(matrices(model, run_id), method), head_similarity(model)

    return services.remember(("points", run_id, services.run(run_id).state()["adapter_hash"], method), compute)
