"""Components of a dataset: text features, k-means or DBSCAN, and their number, which sets the number of heads.

The clustering sets the number of heads and may initialise the router; it never assigns a row to a head.
"""

from hydralora.components.agreement import Overlap, overlap
from hydralora.components.choose_k import Choice, elbow, kneedle
from hydralora.components.cluster import MAX_K, cluster, one_component
from hydralora.components.clusters import ClusterMethod, Clusters
from hydralora.components.describe import Component, renamed
from hydralora.components.features import Encoder, Features, remembered
from hydralora.components.trials import TRIAL_METHODS, TrialMethod, trials

__all__ = [
    "MAX_K",
    "TRIAL_METHODS",
    "Choice",
    "ClusterMethod",
    "Clusters",
    "Component",
    "Encoder",
    "Features",
    "Overlap",
    "TrialMethod",
    "cluster",
    "elbow",
    "kneedle",
    "one_component",
    "overlap",
    "remembered",
    "renamed",
    "trials",
]
