"""Components of a dataset: features, k-means, what describes a component."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from hydralora import ConfigError, DatasetError
from hydralora.components import Clusters, cluster, one_component, overlap
from hydralora.components.describe import likely_language
from hydralora.components.rows import components_of
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.examples import Example
from hydralora.recipe.settings import Recipe
from hydralora.training.preparation import prepare

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
        own = np.flatnonzero(found.labels == component.id)
        assert (component.size, component.share) == (len(own), len(own) / 800)
        assert component.nearest[0] == own[np.argmin(found.distances[own])]
        assert component.outliers[0] == own[np.argmax(found.distances[own])]
        assert set(component.nearest) | set(component.outliers) <= set(own.tolist())
        assert len(component.terms) >= 3
    assert len({component.name for component in found.components}) == 4


def test_distances_are_to_the_rows_own_centre() -> None:
    found = cluster(TEXTS, k=3)
    for i in range(3):
        own = found.vectors[found.labels == i]
        assert found.distances[found.labels == i] == pytest.approx(np.linalg.norm(own - own.mean(0), axis=1), abs=1e-6)


def test_terms_set_a_component_apart_from_the_others() -> None:
    texts = [f"please do the following and say {TOPICS[i % 2]} now" for i in range(20)]
    for component in cluster(texts, k=2).components:
        own = TOPICS[component.nearest[0] % 2].split()
        assert set(component.terms[:4]) == set(own)
        assert component.name == ", ".join(component.terms[:3])


def test_a_component_without_words_is_described_by_its_numbers() -> None:
    texts = [*(f"please name {fruit}" for fruit in TOPICS[0].split() * 5), *(f"7 * {i} =" for i in range(20))]
    found = cluster(texts, k=2)
    assert "7" in found.components[found.labels[-1]].terms


def test_english_is_told_by_its_stop_words() -> None:
    english = ["Write the name of the city that is in the text.", "What is the sum of these two numbers?"]
    german = ["Schreibe den Namen der Stadt, die in dem Text steht.", "Was ist die Summe von diesen zwei Zahlen?"]
    french = ["Quel est le nom de la ville dans ce texte ?", "On a un nombre et il est plus grand que les autres."]
    assert likely_language(english) == "en"
    assert likely_language(german) is likely_language(french) is likely_language(["1 + 2", ""]) is None
    texts = [f"what is the {word} of the {i}" for i in range(10) for word in ("river", "number")]
    assert not any({"what", "is", "the", "of"} & set(c.terms) for c in cluster(texts, k=2).components)


def test_stop_words_are_left_out_of_a_known_language() -> None:
    texts = [f"what is the {TOPICS[i % 2]}" for i in range(20)]
    assert not any({"what", "is", "the"} & set(c.terms) for c in cluster(texts, k=2, language="en").components)
    with pytest.raises(ConfigError, match=r"stop words for language 'xx'.*en"):
        cluster(texts, language="xx")


def test_a_seed_gives_the_same_components() -> None:
    first, again = (cluster(TEXTS, seed=3, max_k=6) for _ in range(2))
    assert first.labels.tolist() == again.labels.tolist()
    assert (first.sse, first.choice) == (again.sse, again.choice)
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
    texts = ["red apple", "apple red", "Red Apple", "blue sky", "sky blue"]
    assert cluster(texts).k <= 2
    with pytest.raises(ConfigError, match=r"k is 3.*from 1 to 2"):
        cluster(texts, k=3)


@pytest.mark.parametrize(
    ("texts", "features", "said"),
    [
        (["", " "], "tfidf-svd", "holds a word, number or mark"),
        (["1 + 2", "? !"], "tfidf", "holds a word of two letters.*tfidf-svd read numbers"),
    ],
)
def test_texts_without_tokens_are_refused(texts: list[str], features: str, said: str) -> None:
    with pytest.raises(DatasetError, match=rf"None of the 2 texts {said}.*num_heads.*router_init=random"):
        cluster(texts, features=features)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kinds",
    [("{} + {} =", "{} * {} ="), ("( [ ] {0} )", "< {{ }} {0} >"), ("请把{}翻译成英文", "计算{}等于几")],
    ids=["arithmetic", "brackets", "Chinese"],
)
def test_rows_without_words_between_spaces_are_told_apart(kinds: tuple[str, str]) -> None:
    texts = [kinds[i % 2].format(chr(0x4E8C + i), chr(0x4F8C + i)) for i in range(40)]
    assert adjusted_rand_score([i % 2 for i in range(40)], cluster(texts, k=2).labels) == 1


def test_no_rows_and_rows_that_are_no_text_are_refused() -> None:
    with pytest.raises(DatasetError, match="no rows to cluster"):
        cluster([])
    with pytest.raises(DatasetError, match="Row 2 is NoneType, not text"):
        cluster(["a word", None])  # type: ignore[list-item]


def encode(texts: Sequence[str]) -> np.ndarray:
    """Vectors of a caller's own: which topic a text is about, and how long it is."""
    return (
        np.array([[text.startswith(topic.split()[0]) for topic in TOPICS] + [len(text) / 1e4] for text in texts]) * 5.0
    )


def test_the_product_of_two_rows_weighs_a_token_by_its_idf_once() -> None:
    texts = ["red apple pie", "red apple cake", "green apple pie", "blue sky", "blue sky pie", "red sky"]
    has = np.array([[word in text.split() for word in sorted(set(" ".join(texts).split()))] for text in texts], float)
    products = has @ np.diag(np.log((1 + len(texts)) / (1 + has.sum(0))) + 1) @ has.T
    lengths = np.sqrt(np.diag(products))
    vectors = cluster(texts).vectors
    assert vectors @ vectors.T == pytest.approx(products / np.outer(lengths, lengths), abs=1e-6)


def test_every_row_may_be_a_component() -> None:
    assert cluster([f"row {'abcdefghijkl'[i] * 2}" for i in range(12)], k=12).sizes == [1] * 12


def test_a_caller_may_hand_in_vectors() -> None:
    found = cluster(TEXTS, features=encode)
    assert (found.k, found.features) == (3, "vectors")
    assert adjusted_rand_score([i % 3 for i in range(30)], found.labels) == 1
    assert found.assign(["hammer", "rain", "hammer and nail"]) == [found.labels[i] for i in (1, 2, 1)]
    assert found.assign([]) == []
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.zeros((29, 3)), r"shape \(29, 3\) for 30 texts.*\(30, dims\)"),
        (np.zeros(30), r"shape \(30,\)"),
        (np.full((30, 2), np.nan), r"30 vectors that are not finite, the first for row 1"),
        (np.array([["x"]] * 30), r"<U1 vectors"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(vectors: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cluster(TEXTS, features=lambda texts: vectors)


@pytest.mark.parametrize("features", ["tfidf-svd", "tfidf"])
@pytest.mark.parametrize("rows", [1, 5])
def test_rows_that_are_all_the_same_are_one_component(rows: int, features: str) -> None:
    clusters = cluster(["only one row here"] * rows, features=features)  # type: ignore[arg-type]
    assert (clusters.k, clusters.sizes, clusters.labels.tolist()) == (1, [rows], [0] * rows)
    assert not clusters.map("pca").any()


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
    monkeypatch.setattr("hydralora.components.clusters.SILHOUETTE_ROWS", 20)
    first, again, other = (cluster(TEXTS, max_k=4, seed=seed).silhouette for seed in (0, 0, 1))
    assert first == again != other


def test_a_row_on_its_own_has_no_silhouette() -> None:
    assert cluster(["red apple", "blue sky"]).silhouette == [(2, 0.0)]


def test_many_rows_are_fitted_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.components.features.FIT_ROWS", 60)
    monkeypatch.setattr("hydralora.components.kmeans.FIT_ROWS", 60)
    monkeypatch.setattr("hydralora.components.kmeans.TREE_ROWS", 40)
    found = cluster(TEXTS * 10, k=3)
    assert found.sizes == [100, 100, 100]
    assert found.sse[2][1] == pytest.approx((found.distances**2).sum(), rel=1e-3)


def test_rare_rows_can_still_have_components_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two different rows among many like ones: the sample for Ward's tree holds neither."""
    monkeypatch.setattr("hydralora.components.kmeans.TREE_ROWS", 10)
    found = cluster(["red apple"] * 500 + ["blue sky", "old stone"], k=3)
    assert sorted(found.sizes) == [1, 1, 500]


def test_tasks_are_compared_with_components() -> None:
    found = overlap([0, 0, 1, 1, -1, 2], ["b", "b", "a", "a", "a", None])
    assert (found.tasks, found.components) == (["a", "b"], [-1, 0, 1])
    assert found.table.tolist() == [[1, 0, 2], [0, 2, 0]]
    assert overlap([1, 1, 0], ["x", "x", "y"]).ari == overlap([1, 1, 0], ["x", "x", "y"]).nmi == 1
    assert overlap([0, 1, 0, 1], ["x", "x", "y", "y"]).nmi == pytest.approx(0)


def test_tasks_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DatasetError, match="No row names its task"):
        overlap([0, 1], [None, None])
    with pytest.raises(DatasetError, match="2 labels, but 1 tasks"):
        overlap([0, 1], ["x"])


def blanks(count: int) -> list[Example]:
    """Rows without a token."""
    turns = [({"role": "user", "content": " " * i}, {"role": "assistant", "content": "x"}) for i in range(count)]
    return [Example(i, messages) for i, messages in enumerate(turns, 1)]


@pytest.mark.parametrize(("method", "tuner"), [("lora", {}), ("hydralora", {"router_init": "random"})])
def test_rows_without_tokens_are_one_component(make_recipe: Make, method: str, tuner: dict[str, Any]) -> None:
    found = components_of(make_recipe(method=method, tuner=tuner), blanks(5))
    assert (found.k, found.sizes) == (1, [5])


@pytest.mark.parametrize("tuner", [{}, {"num_heads": None, "router_init": "random"}])
def test_heads_from_components_need_tokens(make_recipe: Make, tuner: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"tuner\.num_heads together with tuner\.router_init=random"):
        components_of(make_recipe(tuner=tuner), blanks(5))


def test_a_component_of_long_rows_alone_names_max_length(make_recipe: Make, tmp_path: Path) -> None:
    rows = [{"instruction": f"{'fruit apple' if i % 2 else 'tool hammer ' * 20} {i}", "output": "x"} for i in range(20)]
    recipe = make_recipe(tuner={"num_heads": 2}, max_length=120)
    recipe.data.train = str(tmp_path / "rows.jsonl")
    Path(recipe.data.train).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"hammer.*max_length=120"):
        prepare(recipe, lambda stage: None)
