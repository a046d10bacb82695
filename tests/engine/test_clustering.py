"""Components of a dataset, and how many there are."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from hydralora import ConfigError, DatasetError
from hydralora.assets import demo_file
from hydralora.clustering import Clusters, cluster, elbow, one_component
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.examples import Example
from hydralora.preparation import find_components, prepare
from hydralora.recipe import Recipe

Make = Callable[..., Recipe]
TOPICS = ("apple pear plum fruit", "hammer saw drill tool", "rain snow wind weather")
TEXTS = [f"{' '.join(TOPICS[i % 3].split()[: 2 + i % 3])} number{i}" for i in range(30)]


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return read_dataset(demo_file("train"))


@pytest.fixture(scope="module")
def found(demo: Dataset) -> Clusters:
    return cluster([example.question for example in demo.examples])


def test_the_demos_four_skills_are_found(demo: Dataset, found: Clusters) -> None:
    assert found.k == 4
    assert adjusted_rand_score(demo.tasks, found.labels) >= 0.8


def test_sse_falls_from_one_to_twenty(found: Clusters) -> None:
    ks, values = zip(*found.sse, strict=True)
    assert ks == tuple(range(1, 21))
    assert all(later <= earlier * 1.01 for earlier, later in pairwise(values))
    assert values[-1] < values[0] / 2


def test_labels_are_in_row_order(demo: Dataset, found: Clusters) -> None:
    assert len(found.labels) == len(demo.examples)
    assert found.sizes == [int((found.labels == i).sum()) for i in range(found.k)]
    assert found.assign([example.question for example in demo.examples]) == found.labels.tolist()


def test_new_texts_go_to_their_component(found: Clusters, demo: Dataset) -> None:
    heldout = read_dataset(demo_file("heldout"))
    assigned = found.assign([example.question for example in heldout.examples])
    assert adjusted_rand_score(heldout.tasks, assigned) >= 0.8


def test_components_are_described_by_their_own_rows(found: Clusters) -> None:
    for component in found.components:
        assert component.size == found.sizes[component.id]
        assert {found.labels[row] for row in component.nearest} == {component.id}
        assert len(component.terms) >= 3
    assert len({component.name for component in found.components}) == 4


def test_a_seed_gives_the_same_components() -> None:
    first, again = (cluster(TEXTS, seed=3) for _ in range(2))
    assert first.labels.tolist() == again.labels.tolist()
    assert first.sse == again.sse
    assert np.array_equal(first.map("pca"), again.map("pca"))


@pytest.mark.parametrize("features", ["tfidf-svd", "tfidf"])
def test_a_given_number_is_kept(features: str) -> None:
    clusters = cluster(TEXTS, k=3, features=features)  # type: ignore[arg-type]
    assert clusters.k == 3
    assert adjusted_rand_score([i % 3 for i in range(30)], clusters.labels) == 1
    assert clusters.map("pca").shape == (30, 2)


def test_an_unknown_kind_of_features_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"words.*tfidf"):
        cluster(TEXTS, features="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, -1, 31])
def test_a_number_that_is_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ConfigError, match=rf"k is {k}.*from 1 to 30"):
        cluster(TEXTS, k=k)


def test_texts_of_the_same_words_are_one_point() -> None:
    texts = ["red apple", "apple red", "Red Apple!", "blue sky", "sky, blue"]
    assert cluster(texts).k <= 2
    with pytest.raises(ConfigError, match=r"k is 3.*from 1 to 2"):
        cluster(texts, k=3)


@pytest.mark.parametrize("texts", [["", ""], ["1 + 2", "? !"]])
def test_texts_without_words_are_refused(texts: list[str]) -> None:
    with pytest.raises(DatasetError, match=r"None of the 2 texts holds a word.*num_heads.*router_init=random"):
        cluster(texts)


@pytest.mark.parametrize("features", ["tfidf-svd", "tfidf"])
@pytest.mark.parametrize("rows", [1, 5])
def test_rows_that_are_all_the_same_are_one_component(rows: int, features: str) -> None:
    clusters = cluster(["only one row here"] * rows, features=features)  # type: ignore[arg-type]
    assert (clusters.k, clusters.sizes, clusters.labels.tolist()) == (1, [rows], [0] * rows)
    assert not clusters.map("pca").any()


@pytest.mark.parametrize(
    ("curve", "knee"),
    [
        (lambda k: 100 - 24 * (k - 1) if k <= 4 else 28 - 0.5 * (k - 4), 4),
        (lambda k: 1000 / k**3, 3),
        (lambda k: 100.0 - k, 1),
        (lambda k: 0.0, 1),
    ],
    ids=["bent at 4", "smooth", "straight", "flat"],
)
def test_elbow(curve: Callable[[int], float], knee: int) -> None:
    assert elbow([(k, curve(k)) for k in range(1, 21)]) == knee


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    cluster(TEXTS, max_k=5, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 5) for i in range(1, 6)]


def test_one_component_needs_no_words() -> None:
    clusters = one_component(["1 + 2", "?", "3"])
    assert (clusters.k, clusters.sizes, clusters.labels.tolist()) == (1, [3], [0, 0, 0])
    assert clusters.assign(["4", "ä"]) == [0, 0]
    assert clusters.components[0].size == 3
    assert clusters.silhouette == []


@pytest.mark.parametrize("features", ["tfidf-svd", "tfidf"])
def test_the_silhouette_is_highest_at_the_true_number(features: str) -> None:
    from sklearn.metrics import silhouette_score

    clusters = cluster(TEXTS, k=3, features=features, max_k=6)  # type: ignore[arg-type]
    curve = dict(clusters.silhouette)
    assert list(curve) == [2, 3, 4, 5, 6]
    assert max(curve, key=lambda k: curve[k]) == 3
    assert curve[3] == pytest.approx(silhouette_score(clusters.vectors, clusters.labels))


def test_the_silhouette_reads_a_seeded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.clustering.SILHOUETTE_ROWS", 20)
    first, again, other = (cluster(TEXTS, max_k=4, seed=seed).silhouette for seed in (0, 0, 1))
    assert first == again != other


def test_a_row_on_its_own_has_no_silhouette() -> None:
    assert cluster(["red apple", "blue sky"]).silhouette == [(2, 0.0)]


def sums(count: int) -> list[Example]:
    """Rows without a word."""
    turns = [
        ({"role": "user", "content": f"{i} + 1"}, {"role": "assistant", "content": str(i + 1)}) for i in range(count)
    ]
    return [Example(i, messages) for i, messages in enumerate(turns, 1)]


@pytest.mark.parametrize(("method", "tuner"), [("lora", {}), ("hydralora", {"router_init": "random"})])
def test_rows_without_words_are_one_component(make_recipe: Make, method: str, tuner: dict[str, Any]) -> None:
    found = find_components(make_recipe(method=method, tuner=tuner), sums(5))
    assert (found.k, found.sizes) == (1, [5])


@pytest.mark.parametrize("tuner", [{}, {"num_heads": None, "router_init": "random"}])
def test_heads_from_components_need_words(make_recipe: Make, tuner: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"tuner\.num_heads together with tuner\.router_init=random"):
        find_components(make_recipe(tuner=tuner), sums(5))


def test_a_component_of_long_rows_alone_names_max_length(make_recipe: Make, tmp_path: Path) -> None:
    rows = [{"instruction": f"{'fruit apple' if i % 2 else 'tool hammer ' * 20} {i}", "output": "x"} for i in range(20)]
    recipe = make_recipe(tuner={"num_heads": 2}, max_length=120)
    recipe.data.train = str(tmp_path / "rows.jsonl")
    Path(recipe.data.train).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"hammer.*max_length=120"):
        prepare(recipe, lambda stage: None)
