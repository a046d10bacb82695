"""A and the heads as points, and how alike the heads are."""

from typing import Any

import numpy as np
import pytest
import torch

from hydralora import ConfigError, ModelError
from hydralora.analysis import head_similarity, matrices, project_matrices
from hydralora.projection import project
from hydralora.tuner.model import block_index, hydra_layers
from tests.tiny_model import adapt, shake, tiny_llama

METHODS = ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)]  # umap compiles its loops for half a minute


@pytest.fixture(scope="module")
def model() -> Any:
    return shake(adapt(tiny_llama(), num_heads=3, r=4))


def test_every_matrix_is_one_point_in_the_group_of_its_shape(model: Any) -> None:
    groups = project_matrices(matrices(model, "run-1"))
    assert [group["shape"] for group in groups] == [[4, 48], [4, 80]]
    points = [point for group in groups for point in group["points"]]
    assert len(points) == 6 * (1 + 3)
    assert all(set(point) == {"run", "module", "layer", "kind", "head", "x", "y"} for point in points)
    for module in hydra_layers(model):
        own = [point for point in points if point["module"] == module]
        assert sorted((point["kind"], point["head"] or 0) for point in own) == [
            ("A", 0),
            ("head", 0),
            ("head", 1),
            ("head", 2),
        ]
        assert {point["layer"] for point in own} == {int(module.split(".")[2])}
        assert {point["run"] for point in own} == {"run-1"}
    wide = {(point["kind"], point["module"].rpartition(".")[2]) for point in groups[1]["points"]}
    assert wide == {("A", "down_proj"), ("head", "gate_proj"), ("head", "up_proj")}


def test_vectors_hold_the_matrices_numbers(model: Any) -> None:
    layer = hydra_layers(model)["model.layers.0.mlp.up_proj"]
    own = [matrix for matrix in matrices(model) if matrix.module == "model.layers.0.mlp.up_proj"]
    assert np.array_equal(own[0].vector, layer.hydra_A["default"].get_parameter("weight").detach().numpy().ravel())
    for i in range(3):
        assert np.array_equal(own[1 + i].vector, layer.hydra_B["default"][i].detach().numpy().ravel())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_projection_is_deterministic(method: Any, dims: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 30))
    first, again = (project(vectors, method, dims, seed=3) for _ in range(2))
    assert first.shape == (12, dims)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)


@pytest.mark.parametrize("method", METHODS)
def test_near_vectors_are_near_points(method: Any) -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(10 * i, 0.1, size=(10, 40)) for i in range(2)])
    points = project(vectors, method)
    inside = max(np.linalg.norm(part - part.mean(0), axis=1).max() for part in (points[:10], points[10:]))
    assert np.linalg.norm(points[:10].mean(0) - points[10:].mean(0)) > inside


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_points_are_projected_by_pca(method: Any, count: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, 6))
    assert np.array_equal(project(vectors, method, 2), project(vectors, "pca", 2))
    assert project(vectors, method, 3).shape == (count, 3)


def test_a_group_says_which_method_drew_it() -> None:
    small = shake(adapt(tiny_llama(), num_heads=2, target_modules=["down_proj"], layers_to_transform=[0]))
    assert {group["method"] for group in project_matrices(matrices(small), "tsne")} == {"pca"}


@pytest.mark.parametrize("method", METHODS)
def test_points_that_are_all_the_same_are_projected(method: Any) -> None:
    points = project(np.ones((8, 20)), method)
    assert points.shape == (8, 2)
    assert np.isfinite(points).all()


def test_a_fresh_adapters_heads_are_one_point() -> None:
    groups = project_matrices([matrix for matrix in matrices(adapt(tiny_llama())) if matrix.kind == "head"])
    assert all(point["x"] == point["y"] == 0 for group in groups for point in group["points"])


@pytest.mark.parametrize(("method", "dims"), [("lda", 2), ("pca", 1), ("pca", 4)])
def test_what_cant_be_drawn_is_refused(method: Any, dims: int) -> None:
    with pytest.raises(ConfigError, match="Choose"):
        project(np.ones((3, 3)), method, dims)


def test_equal_heads_are_wholly_alike_and_opposite_ones_wholly_unlike() -> None:
    model = adapt(tiny_llama(), num_heads=2, target_modules=["up_proj"])
    for layer in hydra_layers(model).values():
        with torch.no_grad():
            layer.hydra_B["default"][0] = torch.randn(4, 80)
            layer.hydra_B["default"][1] = 3 * layer.hydra_B["default"][0]
    assert list(head_similarity(model).values()) == pytest.approx([1, 1])
    with torch.no_grad():
        hydra_layers(model)["model.layers.0.mlp.up_proj"].hydra_B["default"][1] *= -1
    assert head_similarity(model) == pytest.approx({"model.layers.0.mlp.up_proj": -1, "model.layers.1.mlp.up_proj": 1})


def test_random_heads_are_hardly_alike(model: Any) -> None:
    assert all(value is not None and abs(value) < 0.3 for value in head_similarity(model).values())


def test_likeness_needs_two_heads_that_are_not_zero() -> None:
    assert set(head_similarity(adapt(tiny_llama())).values()) == {None}
    assert set(head_similarity(shake(adapt(tiny_llama(), num_heads=1))).values()) == {None}


def test_a_model_without_heads_is_refused() -> None:
    with pytest.raises(ModelError, match="no HydraLoRA heads"):
        matrices(tiny_llama())


@pytest.mark.parametrize(
    ("module", "number"), [("model.layers.7.mlp.up_proj", 7), ("h.11.attn.c_attn", 11), ("lm_head", None)]
)
def test_the_blocks_number_is_in_the_modules_name(module: str, number: int | None) -> None:
    assert block_index(module) == number
