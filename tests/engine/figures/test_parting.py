"""Heads that part: what the pictures hold."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from hydralora.analysis import LayerWeights, head_spread, matrices, project_matrices
from hydralora.figures import head_distances, head_paths
from hydralora.figures.palette import head_colour, head_mark


def traces(figure: str) -> list[dict[str, Any]]:
    return list(json.loads(figure)["data"])


def weights(scale: float) -> dict[str, LayerWeights]:
    """Three heads at a distance that grows with `scale`."""
    torch.manual_seed(0)
    return {"layers.0.up": LayerWeights(torch.randn(1, 4, 6), scale * torch.randn(3, 8, 4), 1.0)}


def test_the_spread_is_each_heads_distance_from_the_mean() -> None:
    layer = weights(1.0)["layers.0.up"]
    centre = layer.heads.mean(0)
    assert head_spread({"a": layer}) == pytest.approx([float((head - centre).norm()) for head in layer.heads])
    doubled = replace(layer, heads=3 * layer.heads)
    assert head_spread({"a": layer, "b": doubled}) == pytest.approx([2 * value for value in head_spread({"a": layer})])
    assert head_spread({"a": replace(layer, heads=torch.zeros(3, 8, 4))}) == [0.0] * 3


def test_distances_have_a_line_for_each_head() -> None:
    drawn = traces(head_distances([(0, [0.0, 0.0]), (2, [1.0, 2.0])], 12))
    assert [trace["y"] for trace in drawn] == [[0.0, 1.0], [0.0, 2.0]]
    assert [trace["line"]["color"] for trace in drawn] == [head_colour(0), head_colour(1)]
    assert [trace["marker"]["symbol"] for trace in drawn] == [head_mark(0), head_mark(1)]
    assert json.loads(head_distances([], 12))["layout"]["xaxis"]["range"][1] >= 12


def test_paths_lead_from_the_first_snapshot_to_the_newest() -> None:
    members = [
        matrix
        for step, scale in ((0, 0.0), (5, 1.0), (10, 2.0))
        for matrix in matrices(weights(scale), step=step)
        if matrix.kind == "head"
    ]
    (group,) = project_matrices(members)
    drawn = traces(head_paths(group, "Heads"))
    assert len(drawn) == 3
    for axis in ("x", "y"):  # they begin as one point
        assert [trace[axis][0] for trace in drawn] == pytest.approx([drawn[0][axis][0]] * 3)
    assert all(trace["text"] == ["step 0", "step 5", "step 10"] for trace in drawn)
    assert drawn[0]["x"][-1] >= 0
    assert drawn[0]["y"][-1] >= 0


def test_a_mirrored_projection_gives_the_same_picture() -> None:
    members = [matrix for matrix in matrices(weights(1.0), step=1) if matrix.kind == "head"] * 2
    (group,) = project_matrices(members)
    mirrored = replace(group, points=[replace(point, x=-point.x) for point in group.points])
    assert head_paths(group, "Heads") == head_paths(mirrored, "Heads")
