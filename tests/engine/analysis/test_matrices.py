"""A and the heads as points, and how alike the heads are."""

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances

from hydralora import ConfigError, ModelError, steer_gates
from hydralora.analysis import (
    Matrix,
    cosines,
    gram,
    head_measures,
    head_similarity,
    matrices,
    model_weights,
    product_spectrum,
    project_matrices,
    read_weights,
    separation,
    spectrum,
)
from hydralora.analysis.matrices import coordinates
from hydralora.projection import project, used_neighbours
from hydralora.tuner.model import block_index, hydra_layers
from tests.known import known
from tests.tiny_model import adapt, shake, tiny_llama

METHODS = ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)]  # umap compiles its loops for half a minute


@pytest.fixture(scope="module")
def model() -> Any:
    return shake(adapt(tiny_llama(), num_heads=3, r=4))


def test_every_matrix_is_one_point_in_the_group_of_its_shape(model: Any) -> None:
    groups = project_matrices(matrices(model_weights(model), "run-1"))
    assert [group.shape for group in groups] == [(4, 48), (4, 80)]
    points = [point for group in groups for point in group.points]
    assert len(points) == 6 * (1 + 3)
    assert all(set(point.describe()) == {"run", "module", "layer", "kind", "head", "x", "y"} for point in points)
    for module in hydra_layers(model):
        own = [point for point in points if point.module == module]
        assert sorted((point.kind, point.head or 0) for point in own) == [
            ("A", 0),
            ("head", 0),
            ("head", 1),
            ("head", 2),
        ]
        assert {point.layer for point in own} == {int(module.split(".")[2])}
        assert {point.run for point in own} == {"run-1"}
    wide = {(point.kind, point.module.rpartition(".")[2]) for point in groups[1].points}
    assert wide == {("A", "down_proj"), ("head", "gate_proj"), ("head", "up_proj")}


def test_vectors_hold_the_matrices_numbers(model: Any) -> None:
    layer = hydra_layers(model)["model.layers.0.mlp.up_proj"]
    own = [matrix for matrix in matrices(model_weights(model)) if matrix.module == "model.layers.0.mlp.up_proj"]
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
def test_a_seed_changes_umap_alone(method: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 30))
    first, other = (project(vectors, method, seed=seed) for seed in (0, 1))
    assert np.array_equal(first, other) == (method != "umap")


@pytest.mark.parametrize(
    ("method", "points", "neighbours", "used"),
    [
        ("tsne", 10, None, 3),
        ("tsne", 1000, None, 30),
        ("tsne", 1000, 50, 50),
        ("umap", 10, 50, 9),
        ("umap", 99, None, 15),
        ("pca", 99, 5, 0),
        ("umap", 4, 5, 0),
    ],
)
def test_of_few_points_fewer_are_neighbours(method: Any, points: int, neighbours: int | None, used: int) -> None:
    assert used_neighbours(method, points, neighbours) == used


def test_a_group_tells_what_it_depends_on(model: Any) -> None:
    found = matrices(model_weights(model))
    for group in project_matrices(found, "tsne", seed=3, neighbours=50):
        assert (group.seed, group.explained) == (None, None)
        assert group.neighbours == (len(group.points) - 1) / 3
    for group in project_matrices(found, "pca", seed=3, neighbours=50):
        assert (group.seed, group.neighbours) == (None, None)
        vectors = np.stack([one.vector for one in found if one.shape == group.shape])
        assert group.explained == pytest.approx(PCA(2).fit(vectors).explained_variance_ratio_.sum(), abs=1e-5)


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
    assert {group.method for group in project_matrices(matrices(model_weights(small)), "tsne")} == {"pca"}


@pytest.mark.parametrize("method", METHODS)
def test_points_that_are_all_the_same_are_projected(method: Any) -> None:
    points = project(np.ones((8, 20)), method)
    assert points.shape == (8, 2)
    assert np.isfinite(points).all()


def test_a_fresh_adapters_heads_are_one_point() -> None:
    groups = project_matrices(
        [matrix for matrix in matrices(model_weights(adapt(tiny_llama()))) if matrix.kind == "head"]
    )
    assert all(point.x == point.y == 0 for group in groups for point in group.points)


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
    assert list(head_similarity(model_weights(model)).values()) == pytest.approx([1, 1])
    with torch.no_grad():
        hydra_layers(model)["model.layers.0.mlp.up_proj"].hydra_B["default"][1] *= -1
    assert head_similarity(model_weights(model)) == pytest.approx(
        {"model.layers.0.mlp.up_proj": -1, "model.layers.1.mlp.up_proj": 1}
    )


def test_random_heads_are_hardly_alike(model: Any) -> None:
    assert all(value is not None and abs(value) < 0.3 for value in head_similarity(model_weights(model)).values())


def test_likeness_needs_two_heads_that_are_not_zero() -> None:
    assert set(head_similarity(model_weights(adapt(tiny_llama()))).values()) == {None}
    assert set(head_similarity(model_weights(shake(adapt(tiny_llama(), num_heads=1)))).values()) == {None}


def test_a_model_without_heads_is_refused() -> None:
    with pytest.raises(ModelError, match="no HydraLoRA heads"):
        matrices(model_weights(tiny_llama()))


@pytest.mark.parametrize(
    ("module", "number"), [("model.layers.7.mlp.up_proj", 7), ("h.11.attn.c_attn", 11), ("lm_head", None)]
)
def test_the_blocks_number_is_in_the_modules_name(module: str, number: int | None) -> None:
    assert block_index(module) == number


class TestWeights:
    """What a file holds is what the model computes with."""

    @pytest.mark.parametrize("settings", [{}, {"shared_A": False}], ids=str)
    def test_a_saved_adapter_is_read_without_its_base_model(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        model = shake(adapt(tiny_llama(), num_heads=3, r=4, **settings))
        model.save_pretrained(tmp_path)
        found, wanted = read_weights(tmp_path), model_weights(model)
        assert set(found) == set(wanted)
        for module, layer in wanted.items():
            assert torch.equal(found[module].a, layer.a)
            assert torch.equal(found[module].heads, layer.heads)
            assert found[module].scaling == layer.scaling

    @pytest.mark.parametrize("rslora", [False, True])
    def test_ranks_and_scales_may_differ_by_layer(self, tmp_path: Path, rslora: bool) -> None:
        patterns: dict[str, Any] = {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 7}}
        model = shake(adapt(tiny_llama(), use_rslora=rslora, **patterns))
        model.save_pretrained(tmp_path)
        found, wanted = read_weights(tmp_path), model_weights(model)
        for module, layer in wanted.items():
            assert torch.equal(found[module].a, layer.a)
            assert found[module].scaling == layer.scaling
        groups = project_matrices(matrices(found))
        assert {group.shape for group in groups} == {(2, 48), (2, 80), (4, 48), (4, 80)}
        assert sum(len(group.points) for group in groups) == 6 * 4
        assert set(head_similarity(found)) == set(head_similarity(wanted))

    @pytest.mark.parametrize("rslora", [False, True])
    def test_a_plain_lora_is_one_head(self, tmp_path: Path, rslora: bool) -> None:
        config = LoraConfig(
            r=4,
            lora_alpha=16,
            alpha_pattern={"layers.1.mlp.up_proj": 5},
            use_rslora=rslora,
            target_modules=["up_proj"],
            init_lora_weights=False,
        )
        model: Any = get_peft_model(tiny_llama(), config)
        model.save_pretrained(tmp_path)
        for module, layer in read_weights(tmp_path).items():
            own = model.get_submodule(f"base_model.model.{module}")
            update = own.get_delta_weight("default")
            assert torch.allclose(layer.scaling * layer.heads[0] @ layer.a_of(0), update, atol=1e-6)

    def test_blocks_come_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        adapt(tiny_llama(num_hidden_layers=12), target_modules=["up_proj"]).save_pretrained(tmp_path)
        assert [block_index(module) for module in read_weights(tmp_path)] == list(range(12))

    def test_what_is_no_adapter_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
            read_weights(tmp_path)
        adapt(tiny_llama()).save_pretrained(tmp_path)
        (tmp_path / "adapter_model.safetensors").write_bytes(b"no tensors")
        with pytest.raises(ModelError, match="can't be read"):
            read_weights(tmp_path)


class TestDistances:
    """A projection sees the matrices' true distances, though it gets a few coordinates of each only."""

    @pytest.mark.parametrize("products", [False, True], ids=["A and heads", "products"])
    def test_coordinates_keep_every_distance(self, model: Any, products: bool) -> None:
        members = [one for one in matrices(model_weights(model), products=products) if one.shape in ((4, 80), (80, 48))]
        vectors = np.stack([one.vector for one in members]).astype(float)
        assert np.allclose(gram(members), vectors @ vectors.T, atol=1e-6)
        points = coordinates(gram(members))
        assert points.shape[1] < len(members)
        assert np.allclose(pairwise_distances(points), pairwise_distances(vectors), atol=1e-5)

    def test_pca_of_the_coordinates_is_pca_of_the_matrices(self, model: Any) -> None:
        members = [one for one in matrices(model_weights(model)) if one.shape == (4, 80)]
        wanted = project(np.stack([one.vector for one in members]), "pca", 3)
        found = project(coordinates(gram(members)), "pca", 3)
        assert np.allclose(np.abs(found), np.abs(wanted), atol=1e-4)

    def test_a_product_is_what_its_head_adds_to_the_layer(self, model: Any) -> None:
        layer = hydra_layers(model)["model.layers.0.mlp.up_proj"]
        found = [one for one in matrices(model_weights(model), products=True) if one.module.endswith("0.mlp.up_proj")]
        with torch.no_grad(), steer_gates(model, pin=1):
            x = torch.randn(5, 48)
            added = layer(x) - layer.get_base_layer()(x)
        assert torch.allclose(x @ found[1].whole.T, added, atol=1e-5)

    def test_cosines_are_those_of_the_matrices(self, model: Any) -> None:
        members = [one for one in matrices(model_weights(model)) if one.shape == (4, 48)][:3]
        vectors = torch.tensor(np.stack([one.vector for one in members]))
        wanted = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
        assert np.allclose(np.array(cosines(gram(members)), dtype=float), wanted, atol=1e-6)
        zero = [one for one in matrices(model_weights(adapt(tiny_llama()))) if one.kind == "head"][:2]
        assert cosines(gram(zero)) == [[None, None], [None, None]]

    def test_a_small_group_brings_its_cosines(self) -> None:
        small = shake(adapt(tiny_llama(), num_heads=2, target_modules=["down_proj"], layers_to_transform=[0]))
        groups = project_matrices(matrices(model_weights(small)), "umap")
        assert [len(known(group.cosines)) for group in groups] == [len(group.points) for group in groups] == [2, 1]


class TestSpectrum:
    def test_singular_values_are_those_of_the_matrix(self, model: Any) -> None:
        for products in (False, True):
            for one in matrices(model_weights(model), products=products)[:6]:
                found = spectrum(one.right) if one.left is None else product_spectrum(one.left, one.right)
                wanted = torch.linalg.svdvals(one.whole.double())[: len(found.singular_values)]
                assert np.allclose(found.singular_values, wanted, atol=1e-5)
                assert found.norm == pytest.approx(float(one.whole.norm()), rel=1e-5)

    def test_effective_rank_is_one_for_one_direction_and_r_for_alike_ones(self) -> None:
        assert spectrum(torch.outer(torch.ones(4), torch.randn(30))).effective_rank == pytest.approx(1, abs=1e-3)
        assert spectrum(torch.eye(4, 30)).effective_rank == pytest.approx(4)
        assert spectrum(torch.zeros(4, 30)).effective_rank == 0


def test_heads_are_measured_each_and_against_their_start() -> None:
    model = adapt(tiny_llama(), num_heads=2, target_modules=["up_proj"])
    start = model_weights(shake(model))
    start = {module: replace(layer, heads=layer.heads.clone()) for module, layer in start.items()}
    with torch.no_grad():
        for layer in hydra_layers(model).values():
            layer.hydra_B["default"][0] += 1
    rows = head_measures(model_weights(model), start)
    assert [(row.layer, row.head) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row.moved for row in rows] == pytest.approx([(4 * 80) ** 0.5, 0] * 2, rel=1e-5)
    assert rows[0].similarity == pytest.approx(rows[1].similarity)
    assert {row.moved for row in head_measures(model_weights(model))} == {None}


class TestSeparation:
    """Labels that part the matrices stand out from the same labels dealt out anew."""

    @staticmethod
    def members(apart: float) -> list[Matrix]:
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(3, 4, 30, generator=generator)
        return [
            Matrix(
                f"run {i}",
                f"layers.{layer}",
                layer,
                "head",
                0,
                None,
                (4, 30),
                None,
                apart * directions[i] + torch.randn(4, 30, generator=generator),
            )
            for layer in range(8)
            for i in range(3)
        ]

    def test_runs_that_lie_apart_are_told_from_those_that_do_not(self) -> None:
        for apart, wanted in ((2.0, True), (0.0, False)):
            members = self.members(apart)
            (found,) = separation(members, [one.run for one in members], times=50)
            assert found.apart == wanted
            assert found.modules == 8
            assert found.chance[0] < found.chance[1]
        assert found.cosine == pytest.approx(0, abs=0.1)

    def test_silhouette_and_chance_are_those_of_the_distances(self) -> None:
        members = self.members(0.5)[:9]  # of three layers
        labels = [one.run for one in members]
        (found,) = separation(members, labels)
        vectors = np.stack([one.vector for one in members]).astype(float)
        distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)

        def silhouette(dealt: list[str]) -> float:
            values = []
            for i, own in enumerate(dealt):
                others = [j for j in range(len(dealt)) if j != i]
                near = {of: np.mean([distances[i, j] for j in others if dealt[j] == of]) for of in set(dealt)}
                inside, outside = near.pop(own), min(near.values())
                values.append((outside - inside) / max(inside, outside))
            return float(np.mean(values))

        assert found.silhouette == pytest.approx(silhouette(labels), abs=1e-6)
        ways = np.array([silhouette([*a, *b, *c]) for a, b, c in product(permutations(labels[:3]), repeat=3)])
        assert found.ways == len(set(ways.round(9))) == 36
        assert np.abs(np.array(found.dealt)[:, None] - ways).min(1).max() < 1e-6
        assert np.mean(found.dealt) == pytest.approx(ways.mean(), abs=4 * ways.std() / len(found.dealt) ** 0.5)
        assert found.chance == pytest.approx(np.percentile(found.dealt, (2.5, 97.5)))
        low, high = found.chance
        assert max((ways < low).mean(), (ways > high).mean()) < 0.08

    def test_cosines_are_those_of_unlike_labels_in_a_module(self) -> None:
        members = self.members(0.5)
        for one in members[:3]:
            one.right.zero_()
        (found,) = separation(members, [one.run for one in members], times=1)
        assert set(found.cosines) == {f"layers.{layer}" for layer in range(1, 8)}
        for module, value in found.cosines.items():
            own = [one.right.flatten() for one in members if one.module == module]
            pairs = [torch.cosine_similarity(own[i], own[j], dim=0) for i, j in ((0, 1), (0, 2), (1, 2))]
            assert value == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-5)
        assert found.cosine == pytest.approx(np.mean(list(found.cosines.values())))

    def test_one_label_is_not_compared_with_itself(self) -> None:
        members = self.members(1.0)
        assert separation(members, ["one"] * len(members)) == []
