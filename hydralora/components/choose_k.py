"""The number of components of a dataset, and how reliable it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.components.features import TokenTable, Vectors, dense, sample_rows, token_table
from hydralora.components.kinds import kinds
from hydralora.components.kmeans import TREE_ROWS, Partition, partitions

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FEWEST_WORDINGS = 4  # two kinds of two wordings; an elbow below that has not counted wordings
VOTES = 10  # random halves of the rows on which the number is determined again
AFTER = 2  # drops after a k with which its own drop is compared
FLAT = 0.005  # of the first SSE: the least that a drop counts
STRAIGHT = 1.1  # the least ratio of a drop to those after it that makes an elbow
ALIKE = 0.5  # mean cosine of token counts above which rows of different components are of one kind
UNSORTED = 0.8  # ... and the same as a share of the cosine within components
SURE, FAIR = 0.8, 0.5

Grade = Literal["sure", "fairly sure", "unsure"]


@dataclass(frozen=True)
class Choice:
    """The chosen number of components.

    Attributes:
        k: the number.
        elbow: the SSE curve's elbow, 2 or more where there is one; k is 1 instead where its components are one kind,
            and the number of kinds where groups are merged into kinds.
        sureness: 0 to 1. The share of random halves of the rows that give k, give or take one (or a tenth), times
            the mean adjusted Rand index between their clusters and these.
        votes: the number found in each half.
        between: mean cosine of token counts between rows of different kinds, or of different groups at the elbow; 0
            means no shared token. It is measured on rows that were not clustered.
        within: the same between different rows of one group.
        merged: whether the components are kinds, of small groups whose vocabularies overlap (`kinds`).
    """

    k: int
    elbow: int
    sureness: float
    votes: tuple[int, ...]
    between: float
    within: float
    merged: bool = False

    @property
    def grade(self) -> Grade:
        return "sure" if self.sureness >= SURE else "fairly sure" if self.sureness >= FAIR else "unsure"

    @property
    def sentence(self) -> str:
        """One sentence for a user: the number, why, and how far to trust it."""
        if not self.votes:
            return f"{_components(self.k)}, but there are too few distinct rows for a reliable number."
        others = [vote for vote in self.votes if not _near(vote, self.k)]
        agree = len(self.votes) - len(others)
        halves = f"{agree} of {len(self.votes)} random halves of the rows gave {self._about}{_spread(others)}"
        advice = {
            "sure": "so the number is stable",
            "fairly sure": "so it may be off by a few",
            "unsure": "so check the components and set the number yourself",
        }
        return f"{_components(self.k)}{self._why}: {halves}, {advice[self.grade]}."

    @property
    def _about(self) -> str:
        return "one as well" if self.k == 1 else "about as many"

    @property
    def _why(self) -> str:
        if self.k > 1:
            wordings = f", since groups with a shared vocabulary are counted as one (the curve's elbow is {self.elbow})"
            return wordings if self.merged and self.k != self.elbow else ""
        if self.elbow == 1:
            return ", since the curve has no elbow"
        if self.between > ALIKE:
            return f", since rows share most of their words even across the {self.elbow} groups at the curve's elbow"
        return (
            f", since rows of the {self.elbow} groups at the curve's elbow hardly differ more than rows within a group"
        )


def elbow(sse: Sequence[tuple[int, float]]) -> int:
    """The k at the elbow of a falling SSE curve, [(k, SSE)] for k = 1, 2, ...; 1 where it has none.

    It is the k whose drop from k - 1 is largest in proportion to the mean of the next two drops. A curve that ends
    near zero, with a centre for every distinct row, is continued flat.
    """
    values = np.array([value for _, value in sse], dtype=float)
    if len(values) < 2 or values[0] <= 0:
        return 1
    drops = np.maximum(-np.diff(values), 0)
    if values[-1] <= 1e-6 * values[0]:
        drops = np.append(drops, np.zeros(AFTER))
    if len(drops) <= AFTER:
        return 1
    later = np.array([drops[i + 1 : i + 1 + AFTER].mean() for i in range(len(drops) - 1)])
    ratios = drops[:-1] / np.maximum(later, FLAT * values[0])
    best = int(np.argmax(ratios))
    return sse[best + 1][0] if ratios[best] >= STRAIGHT else 1


def kneedle(sse: Sequence[tuple[int, float]]) -> int:
    """The k at the knee of the curve by Kneedle (Satopää et al. 2011); 1 where it has none. For comparison."""
    from kneed import KneeLocator

    ks, values = zip(*sse, strict=True)
    if len(sse) < 3 or values[0] <= 0:
        return 1
    knee = KneeLocator(ks, values, curve="convex", direction="decreasing").knee
    return int(knee) if knee else 1


def choose_number(
    texts: Sequence[str],
    vectors: Vectors,
    found: Sequence[Partition],
    seed: int,
    on_done: Callable[[], None] = lambda: None,
) -> tuple[Choice, Partition]:
    """Choose among these partitions, with a check on random halves of at most 2,000 rows; also the chosen partition.

    An elbow alone finds groups in every file: wordings of one question, subjects of one puzzle, or noise. Groups whose
    vocabularies clearly overlap are merged into kinds. Kinds, or else the elbow's groups, count only if rows that were
    not clustered, each assigned to the nearest centre, share clearly fewer tokens with rows of other groups than with
    those of the same group.
    """
    rows = sample_rows(vectors.shape[0], TREE_ROWS, seed)
    points, table = dense(vectors[rows]), token_table([texts[i] for i in rows])
    at_elbow, best = _best(found, table.present, rows)
    rng = np.random.default_rng(seed)
    halves = [_Half(points, table, rng.permutation(len(rows))) for _ in range(VOTES if len(rows) > 3 else 0)]
    votes, alike = [], []
    for half in halves:
        half.cluster(found[-1].k, seed)
        votes.append(half.vote())
        alike.append(half.likeness(best))
        on_done()
    between, within = np.mean(alike, axis=0).tolist() if alike else (0.0, 0.0)
    best = best if _are_kinds(between, within) else found[0]
    agreement = np.mean([half.agreement(best, best.labels[rows]) for half in halves]) if halves else 0.0
    sureness = float(np.mean([_near(vote, best.k) for vote in votes]) * agreement) if votes else 0.0
    merged = best.cluster_of is not None
    return Choice(best.k, at_elbow, max(sureness, 0.0), tuple(votes), between, within, merged), best


def _best(found: Sequence[Partition], present: "csr_matrix", rows: np.ndarray) -> tuple[int, Partition]:
    """The elbow, and the partition into kinds, or at the elbow where there are none or the same."""
    from sklearn.metrics import adjusted_rand_score

    at_elbow = elbow([(partition.k, partition.sse) for partition in found])
    by_elbow, by_kind = found[at_elbow - 1], kinds(found, present, rows)
    if by_kind is None or by_kind.k < at_elbow < FEWEST_WORDINGS:
        return at_elbow, by_elbow
    same = adjusted_rand_score(by_elbow.labels, by_kind.labels) == 1
    return at_elbow, by_elbow if same else by_kind


class _Half:
    """A random half of the rows, which is clustered, and the other half, on which the clusters are tested."""

    def __init__(self, points: np.ndarray, table: TokenTable, order: np.ndarray) -> None:
        self._points, self._table = points, table
        self._clustered, self._heldout = order[: len(order) // 2], order[len(order) // 2 :]

    def cluster(self, highest: int, seed: int) -> None:
        points, present = self._points[self._clustered], self._table.present[self._clustered]
        self._partitions = partitions(points, highest, seed, random_starts=0)
        _, self._best = _best(self._partitions, present, np.arange(len(points)))

    def vote(self) -> int:
        return self._best.k if _are_kinds(*self._likeness(self._best)) else 1

    def likeness(self, choice: Partition) -> tuple[float, float]:
        """Of held-out rows, in the half's clusters that are as many as those of this choice."""
        return self._likeness(self._counterpart(choice))

    def agreement(self, choice: Partition, labels: np.ndarray) -> float:
        """Adjusted Rand index between these labels of all rows and the half's own clusters, as many."""
        from sklearn.metrics import adjusted_rand_score

        return float(adjusted_rand_score(labels, self._counterpart(choice).assign(self._points)))

    def _likeness(self, partition: Partition) -> tuple[float, float]:
        return likeness(self._table.shares[self._heldout], partition.assign(self._points[self._heldout]))

    def _counterpart(self, choice: Partition) -> Partition:
        if choice.cluster_of is not None and self._best.k == choice.k:
            return self._best
        return self._partitions[min(choice.k, len(self._partitions)) - 1]


def _are_kinds(between: float, within: float) -> bool:
    return between <= ALIKE and between < UNSORTED * within


def likeness(shares: "csr_matrix", labels: np.ndarray) -> tuple[float, float]:
    """Mean cosine between rows of different clusters, and between rows of the same cluster, from rows of length 1."""
    members = [shares[labels == i] for i in np.unique(labels)]
    sums = np.stack([np.asarray(rows.sum(0)).ravel() for rows in members])  # (k, tokens)
    sizes = np.array([rows.shape[0] for rows in members], dtype=float)
    with threadpool_limits(1):
        products = sums @ sums.T
    pairs = sizes.sum() ** 2 - (sizes**2).sum()
    between = (products.sum() - products.trace()) / max(pairs, 1)
    itself = np.array([rows.multiply(rows).sum() for rows in members])  # a row's cosine to itself is left out
    within = (np.diag(products) - itself) / np.maximum(sizes - 1, 1)
    return float(between), float(within.sum() / sizes.sum())


def _near(vote: int, k: int) -> bool:
    """Equal, give or take one, or a tenth where that is more; one component must match exactly."""
    return vote == k if 1 in (vote, k) else abs(vote - k) <= max(1, k // 10)


def _components(k: int) -> str:
    return "1 component" if k == 1 else f"{k} components"


def _spread(votes: list[int]) -> str:
    if not votes:
        return ""
    low, high = min(votes), max(votes)
    return f", the other{'s' * (len(votes) > 1)} {low}" + (f" to {high}" if high > low else "")
