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
    loaded = services.loaded(run_id, "")
    found = services.remember(("matrices", run_id, loaded.adapter_hash), lambda: matrices(loaded.model, run_id))
    groups = services.remember(("points", run_id, loaded.adapter_hash, method), lambda: project_matrices(found, method))
    return groups, head_similarity(loaded.model)
