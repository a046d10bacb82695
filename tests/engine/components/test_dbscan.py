"""DBSCAN: dense components, noise, and new texts."""

import random
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from hydralora import ConfigError, DatasetError
from hydralora.components import Clusters, cluster

TOPICS = ("apple pear plum fruit cherry grape melon fig", "hammer saw drill tool nail file bolt axe", "rain snow wind")


def texts(rows: int = 180, odd: int = 6) -> list[str]:
    """Rows of three topics in turn, each with words of its own; the last ones share no word with any other."""
    rng = random.Random(0)
    weather = [f"weather{i}" for i in range(8)]
    words = [TOPICS[0].split(), TOPICS[1].split(), TOPICS[2].split() + weather]
    near = [" ".join(rng.sample(words[i % 3], 6)) for i in range(rows)]
    return near + [" ".join(f"rare{rng.randrange(10**6)}" for _ in range(5)) for _ in range(odd)]


@pytest.fixture(scope="module")
def found() -> Clusters:
    return cluster(texts(), method="dbscan")


def test_dense_rows_are_components_and_the_rest_is_noise(found: Clusters) -> None:
    assert (found.k, found.method, found.noise) == (3, "dbscan", 6)
    assert found.labels[-6:].tolist() == [-1] * 6
    assert found.sizes == [60, 60, 60]
    assert adjusted_rand_score([i % 3 for i in range(180)], found.labels[:180]) == 1


def test_eps_is_the_knee_of_the_distances_to_a_neighbour(found: Clusters) -> None:
    density = found.density
    assert density is not None
    assert density.reach.shape == (186,)
    assert (np.diff(density.reach) >= 0).all()
    assert density.eps in density.reach
    assert (density.reach > density.eps).sum() >= 6  # the rows that are like no other lie beyond it
    given = cluster(texts(), method="dbscan", eps=0.95).density
    assert given is not None
    assert given.eps == 0.95
    np.testing.assert_array_equal(given.reach, density.reach)


def test_noise_is_in_no_component(found: Clusters) -> None:
    shown = {row for c in found.components for row in (*c.nearest, *c.outliers)}
    assert len(found.components) == 3
    assert all(row < 180 for row in shown)
    assert sum(component.share for component in found.components) == pytest.approx(180 / 186)
    assert found.distances.shape == (186,)
    assert found.map("pca").shape == (186, 2)


def test_new_texts_join_the_nearest_core(found: Clusters) -> None:
    assert found.assign(["plum fruit", "a drill, a saw", "snow"]) == [found.labels[i] for i in range(3)]
    assert -1 not in found.assign(["something else altogether"])


def test_plain_features_have_dense_components_too() -> None:
    plain = cluster(texts(), features="tfidf", method="dbscan", eps=1.0)
    assert (plain.k, plain.noise) == (3, 6)
    assert plain.assign(["plum fruit"]) == [plain.labels[0]]


def test_a_given_eps_is_kept() -> None:
    wide, narrow = (cluster(texts(), method="dbscan", eps=eps) for eps in (1.9, 0.9))
    assert wide.density is not None
    assert (wide.density.eps, wide.k, narrow.k) == (1.9, 1, 3)


def test_components_are_numbered_by_size() -> None:
    rows = ["red apple pie"] * 11 + ["blue sky above"] * 22 + ["old grey stone"] * 15
    assert cluster(rows, method="dbscan").sizes == [22, 15, 11]


def test_it_is_the_same_again(found: Clusters) -> None:
    assert np.array_equal(cluster(texts(), method="dbscan").labels, found.labels)


def test_of_many_rows_a_sample_is_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.components.dbscan.FIT_ROWS", 120)
    sampled = cluster(texts(), method="dbscan", eps=0.9)
    assert (sampled.k, sampled.noise) == (3, 6)
    assert adjusted_rand_score([i % 3 for i in range(180)], sampled.labels[:180]) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "dbscan", "eps": 0}, r"eps is 0\..*more than 0, at most 2"),
        ({"method": "dbscan", "min_samples": 0}, "min_samples is 0"),
        ({"method": "dbscan", "k": 3}, "k is 3, but DBSCAN finds the number itself"),
        ({"eps": 0.5}, "belong to DBSCAN"),
        ({"method": "guess"}, "The method is 'guess'. Choose one of kmeans, dbscan"),
        ({"max_k": 0}, "max_k is 0"),
    ],
)
def test_unusable_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cluster(texts(), **settings)


def test_nothing_but_noise_is_told() -> None:
    with pytest.raises(
        DatasetError, match=r"no component in 186 rows: none has 50 rows within a distance of 0\.100.*eps"
    ):
        cluster(texts(), method="dbscan", eps=0.1, min_samples=50)
