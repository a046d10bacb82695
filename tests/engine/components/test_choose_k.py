"""How many components there are, and how sure that is."""

import json
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hydralora import ConfigError
from hydralora.components import Choice, Clusters, cluster, elbow, kneedle, trials
from hydralora.data.demo import demo_file

SKILLS = ("arithmetic", "classify", "extract", "reverse")


def demo_rows(*skills: str) -> list[str]:
    rows = [json.loads(line) for line in demo_file("train").read_text(encoding="utf-8").splitlines()]
    return [f"{row['instruction']}\n\n{row['input']}" for row in rows if row["task"] in skills]


def kinds(count: int, rows: int, own: float, seed: int = 0) -> list[str]:
    """Rows of several kinds: a word is of the kind's own twelve with this probability, else one of all the words."""
    rng = random.Random(seed)
    words = [f"word{i:03}" for i in range(12 * count)]

    def word(kind: int) -> str:
        return rng.choice(words[12 * kind : 12 * kind + 12] if rng.random() < own else words)

    return [" ".join(word(i % count) for _ in range(15)) for i in range(rows)]


@pytest.fixture(scope="module")
def demo() -> Clusters:
    return cluster(demo_rows(*SKILLS))


@pytest.mark.parametrize(
    ("curve", "bend"),
    [
        (lambda k: 100 - 24 * (k - 1) if k <= 4 else 28 - 0.5 * (k - 4), 4),
        (lambda k: max(100 - 10 * (k - 1), 10) - 0.1 * k, 10),
        (lambda k: 100 * 0.96**k, 1),
        (lambda k: 100.0 - k, 1),
        (lambda k: 0.0, 1),
    ],
    ids=["bent at 4", "bent at 10", "smooth", "straight", "flat"],
)
def test_elbow(curve: Callable[[int], float], bend: int) -> None:
    assert elbow([(k, curve(k)) for k in range(1, 21)]) == bend


@pytest.mark.parametrize(
    ("values", "bend"), [([], 1), ([5.0], 1), ([5.0, 0.0], 2), ([9.0, 4.0, 0.0], 3), ([9.0, 8.0, 7.0], 1)]
)
def test_the_elbow_of_a_short_curve(values: list[float], bend: int) -> None:
    """It ends where every different row has a centre; one that was cut off before has no elbow."""
    assert elbow(list(enumerate(values, 1))) == bend


def test_kneedle_is_there_for_comparison() -> None:
    assert kneedle([(k, 1000 / k**3) for k in range(1, 21)]) == 3
    assert kneedle([(k, 100.0 - k) for k in range(1, 21)]) == 1


def test_the_demo_is_four_kinds_for_sure(demo: Clusters) -> None:
    choice = demo.choice
    assert choice is not None
    assert (choice.k, choice.elbow, choice.grade) == (4, 4, "sure")
    assert choice.sentence == (
        "4 components: 10 of 10 random halves of the rows gave about as many, so the number is stable."
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 15))
def test_the_number_does_not_hang_on_the_seed(seed: int) -> None:
    assert cluster(demo_rows(*SKILLS), seed=seed).k == 4


@pytest.mark.parametrize("skill", SKILLS)
def test_the_wordings_of_one_skill_are_no_kinds(skill: str) -> None:
    found = cluster(demo_rows(skill))
    assert found.choice is not None
    assert (found.k, found.choice.grade) == (1, "sure")
    assert found.choice.elbow > 1
    assert found.choice.between < found.choice.within
    assert "1 component, since rows share most of their words even across the" in found.choice.sentence


def test_rows_that_differ_at_random_are_one_component() -> None:
    found = cluster(kinds(1, 300, own=0) + kinds(1, 300, own=0, seed=1))
    assert found.k == 1


def test_rows_of_a_large_vocabulary_without_kinds_are_one_component() -> None:
    found = cluster(kinds(40, 300, own=0))
    assert found.choice is not None
    assert found.k == 1
    if found.choice.elbow > 1:
        assert "hardly differ more than rows within a group" in found.choice.sentence


@pytest.mark.parametrize("count", [2, 3, 7, 12])
def test_kinds_are_counted(count: int) -> None:
    assert cluster(kinds(count, 40 * count, own=0.7)).k == count


def test_kinds_are_counted_among_more_rows_than_the_tree_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.components.kmeans.TREE_ROWS", 100)
    monkeypatch.setattr("hydralora.components.choose_k.TREE_ROWS", 100)
    assert cluster(kinds(5, 400, own=0.7)).k == 5


def test_clear_kinds_are_surer_than_blurred_ones() -> None:
    clear, blurred = (cluster(kinds(8, 160, own=own)).choice for own in (0.8, 0.35))
    assert clear is not None
    assert blurred is not None
    assert clear.grade == "sure"
    assert blurred.sureness < clear.sureness - 0.2
    agreeing = sum(abs(vote - blurred.k) <= 1 for vote in blurred.votes) / len(blurred.votes)
    assert 0 < blurred.sureness < agreeing  # even halves that agree on the number draw other lines
    assert blurred.grade in blurred.sentence or "yourself" in blurred.sentence or "off by a few" in blurred.sentence


def test_the_sentence_counts_the_halves_that_agree() -> None:
    votes = (6, 6, 7, 5, 6, 8, 6, 1, 6, 6)
    assert Choice(6, 6, 0.7, votes, 0.1, 0.6).sentence == (
        "6 components: 8 of 10 random halves of the rows gave about as many, the others 1 to 8, "
        "so it may be off by a few."
    )
    assert "9 of 10" in Choice(20, 20, 0.9, (22, *[20] * 8, 17), 0.1, 0.6).sentence
    assert "4 of 5 random halves of the rows gave one as well, the other 2" in (
        Choice(1, 3, 0.8, (1, 1, 1, 1, 2), 0.6, 0.8).sentence
    )


def test_more_kinds_than_were_tried_are_not_sure() -> None:
    choice = cluster(kinds(15, 450, own=0.8), max_k=8).choice
    assert choice is not None
    assert choice.grade != "sure"


def test_like_rows_are_one_component_for_sure() -> None:
    choice = cluster(["same"] * 9).choice
    assert choice is not None
    assert (choice.k, choice.grade) == (1, "sure")


@pytest.mark.parametrize("texts", [["one row"], ["red apple", "blue sky"]])
def test_too_few_rows_are_never_sure(texts: list[str]) -> None:
    choice = cluster(texts).choice
    assert choice is not None
    assert (choice.k, choice.grade) == (1, "unsure")


def test_a_given_number_needs_no_choice() -> None:
    assert cluster(kinds(3, 60, own=0.8), k=5).choice is None


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    cluster(kinds(3, 60, own=0.8), max_k=5, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 16) for i in range(1, 17)]  # features, five k's, ten halves


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 9])
def test_what_progress_raises_stops_the_work(at: int) -> None:
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if done == at:
            raise Stopped

    with pytest.raises(Stopped):
        cluster(kinds(3, 60, own=0.8), max_k=5, on_progress=stop)
    assert told[-1] == at


def test_trials_show_what_each_method_finds() -> None:
    told: list[tuple[int, int]] = []
    texts = kinds(4, 160, own=0.8)
    found = trials(texts, 3, seed=5, max_k=7, on_progress=lambda done, total: told.append((done, total)))
    assert [method for method, _ in found] == ["kmeans", "kneedle", "silhouette", "dbscan"]
    assert all(len(numbers) == 3 for _, numbers in found)
    assert dict(found)["kmeans"] == [4, 4, 4]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert trials(texts, 1, ["kmeans", "dbscan"], seed=6, max_k=7) == [
        (method, numbers[1:2]) for method, numbers in found if method in ("kmeans", "dbscan")
    ]


def test_trials_ask_for_handed_in_vectors_once() -> None:
    asked: list[int] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        return np.eye(3)[[int(text[-1]) % 3 for text in texts]] + 0.01

    assert trials([f"row {i}" for i in range(40)], 2, ["kmeans", "kneedle"], encode)[1][0] == "kneedle"
    assert asked == [40]


def test_progress_reaches_its_end_where_rows_are_alike() -> None:
    told: list[tuple[int, int]] = []
    cluster(["red apple", "apple red", "Red Apple"], on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (14, 14)
    assert told == sorted(set(told))


def test_unusable_trials_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'guess'.*kmeans, kneedle"):
        trials(["a b"], 1, ["guess"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="number of trials is 0"):
        trials(["a b"], 0)
