"""Pictures of matrices tell how they were drawn, how they are read, and whose matrices they show."""

import json
from dataclasses import replace
from typing import Any

import pytest

from hydralora.analysis import Matrix, matrices, model_weights, project_matrices
from hydralora.figures import cosine_matrix, group_figure, how_drawn, how_to_read, trajectory
from tests.known import known
from tests.tiny_model import adapt, shake, tiny_llama


@pytest.fixture(scope="module")
def found() -> list[Matrix]:
    """24 matrices of one run, of two shapes."""
    return matrices(model_weights(shake(adapt(tiny_llama(), num_heads=3, r=4))), "run-1")


def subtitle(figure: str) -> str:
    return str(json.loads(figure)["layout"]["title"]["subtitle"]["text"])


def texts(figure: str) -> list[str]:
    return [text for trace in json.loads(figure)["data"] for text in trace["text"]]


def test_a_title_tells_what_the_picture_depends_on(found: list[Matrix]) -> None:
    for group in project_matrices(found, "tsne", seed=5):
        used = (len(group.points) - 1) / 3
        assert subtitle(group_figure(group, "head")) == f"t-SNE, perplexity {used:.3g}, no seed"
        assert how_drawn(replace(group, method="umap", neighbours=11, seed=5)) == "UMAP, 11 neighbours, seed 5"
    for group in project_matrices(found, dims=3):
        assert subtitle(group_figure(group, "head")) == f"PCA, {100 * known(group.explained):.0f} % of the variance"
    moving = [replace(one, step=step) for one in found for step in (0, 5)]
    for group in project_matrices(moving, "tsne"):
        assert subtitle(trajectory(group, [(1, 2.0)])) == how_drawn(group)


def test_each_method_is_read_its_own_way(found: list[Matrix]) -> None:
    pca, tsne = (how_to_read(project_matrices(found, method)) for method in ("pca", "tsne"))
    assert "gaps between far groups mean nothing" in tsne
    assert "mean nothing" not in pca
    assert "also between distant groups" in pca
    few = how_to_read(project_matrices(found[:4], "tsne"))
    assert "cosines are shown" in few
    assert "Each point" not in few
    assert "mean nothing" not in few


def test_a_picture_of_several_runs_names_them(found: list[Matrix]) -> None:
    both = [*found, *(replace(one, run="<b>other") for one in found)]
    for group in project_matrices(both):
        named = texts(group_figure(group, "head"))
        assert {text.rpartition(", ")[2] for text in named} == {"run-1", "&lt;b>other"}
        assert len(set(named)) == len(group.points)
    assert not any("run-1" in text for group in project_matrices(found) for text in texts(group_figure(group, "head")))
    (few,) = (group for group in project_matrices([both[0], both[len(found)]]))
    (drawn,) = json.loads(group_figure(few, "head"))["data"]
    assert drawn["hovertext"][0][1].split("<br>")[1].endswith("A, &lt;b>other")


def test_names_that_end_alike_are_rows_of_their_own() -> None:
    names = [f"{kind}.layers.0.mlp.a_module_of_a_long_name.down_proj" for kind in ("encoder", "decoder")]
    values: list[list[Any]] = [[1.0, 0.5], [0.5, 1.0]]
    (drawn,) = json.loads(cosine_matrix(names, values, "two"))["data"]
    assert len(set(drawn["x"])) == len(set(drawn["y"])) == 2
    (drawn,) = json.loads(cosine_matrix([f"model.layers.0.mlp.down_proj, B of head {i}" for i in (1, 2)], values, ""))[
        "data"
    ]
    assert [label[-6:] for label in drawn["x"]] == ["head 1", "head 2"]
