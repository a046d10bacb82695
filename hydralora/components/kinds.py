"""Kinds of rows: small groups with overlapping vocabularies, merged.

Rows of one kind may follow a few wordings, and an elbow then counts wordings: "Translate this", "How do you say". They
still speak of the same things, which wordings of other kinds do not.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from hydralora.components.kmeans import Partition

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

GROUPS = range(8, 17)  # numbers of groups that are merged; the result must hold over all of them
UNRELATED = 0.05  # overlap of vocabularies up to which groups share no more than any two do
CLEAR = 1.75  # the least ratio of the overlap within kinds to that between them


def kinds(tried: Sequence[Partition], present: "csr_matrix", rows: np.ndarray) -> Partition | None:
    """The partition into kinds; None unless it is clear.

    For each number of groups, average linkage merges the groups by the overlap of their vocabularies. The number of
    kinds is the one before which the overlap falls most, by the geometric mean of its ratio over all of these trees.

    Args:
        tried: k-means for k = 1, 2, ...
        present: 1 where a row holds a token, sparse (some rows, tokens).
        rows: their places among the partitions' rows, (some rows,).
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    falls: dict[int, list[float]] = {}  # by number of kinds: log ratios
    clearest: dict[int, tuple[float, Partition, np.ndarray]] = {}
    groupings = [partition for partition in tried if partition.k in GROUPS]
    with threadpool_limits(1):
        overlap_of = [vocabulary_overlap(present, partition.labels[rows], partition.k) for partition in groupings]
    for partition, overlap in zip(groupings, overlap_of, strict=True):
        distances = 1 - overlap
        np.fill_diagonal(distances, 0)
        tree = linkage(squareform(distances.clip(0), checks=False), "average")
        overlaps = np.maximum(1 - tree[:, 2], UNRELATED)  # of the two that are merged: from k groups to 1
        for count in range(2, partition.k):
            fall = float(np.log(overlaps[partition.k - count - 1] / overlaps[partition.k - count]))
            falls.setdefault(count, []).append(max(fall, 0.0))
            if fall > clearest.get(count, (-np.inf,))[0]:
                clearest[count] = fall, partition, tree
    if not falls:
        return None
    means = {count: sum(values) / len(groupings) for count, values in falls.items()}
    count = max(means, key=lambda number: means[number])
    if means[count] < np.log(CLEAR):
        return None
    _, partition, tree = clearest[count]
    return partition.merged(fcluster(tree, count, "maxclust") - 1)


def vocabulary_overlap(present: "csr_matrix", labels: np.ndarray, k: int) -> np.ndarray:
    """Cosine of the groups' vocabularies, 0 to 1: (k, k).

    A token's weight is the root of the share of a group's rows that hold it, so that words of some rows count beside
    those of every row, over the root of the sum of its shares: a token of all groups tells nothing.
    """
    from scipy.sparse import csr_matrix

    members = csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
    shares = (members @ present).toarray() / np.maximum(np.bincount(labels, minlength=k), 1)[:, None]
    weights = np.sqrt(shares / np.maximum(shares.sum(0), 1e-12))
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    return weights @ weights.T
