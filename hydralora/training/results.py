"""A run's measurements."""

from typing import Any

from hydralora.analysis import head_similarity, model_weights
from hydralora.analysis.head_use import head_use
from hydralora.components import overlap
from hydralora.models.fetching import BaseModelFiles
from hydralora.training.preparation import Prepared
from hydralora.tuner.model import count_parameters, hydra_layers


def measure_heads(prepared: Prepared) -> dict[str, Any] | None:
    """How the held-out rows use the heads, and how alike these are; None for an adapter without heads.

    component_by_head [i][j] is head j's mean gate on component i (an empty list without rows); mutual_information
    that of component and strongest head (`HeadUse`); head_cosine the mean over layers and pairs of heads, None where
    heads are still zero or there is only one.
    """
    model = prepared.model
    if not hydra_layers(model):
        return None
    use = head_use(model, prepared.heldout, prepared.tokenizer.pad_token_id)
    means = use.mean_gates(prepared.heldout_labels)
    cosines = [cosine for cosine in head_similarity(model_weights(model)).values() if cosine is not None]
    return {
        "component_by_head": [means[i].mean(0).tolist() if i in means else [] for i in range(prepared.k)],
        "mutual_information": use.mutual_information(prepared.heldout_labels),
        "head_cosine": sum(cosines) / len(cosines) if cosines else None,
    }


def describe_run(
    prepared: Prepared,
    base: dict[str, Any],
    tuned: dict[str, Any] | None,
    heads: dict[str, Any] | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """A run's measurements as plain values; ari is the components' adjusted Rand index against the
    tasks, None where rows have no task."""
    clusters, tasks = prepared.clusters, prepared.tasks
    ari = overlap(clusters.labels, [task or None for task in tasks]).ari if tasks else None
    return {
        "rows": prepared.counts,
        "data": prepared.sources,
        "k": clusters.k,
        "sizes": clusters.sizes,
        "components": [{"id": c.id, "name": c.name, "size": c.size, "terms": c.terms} for c in prepared.components],
        "ari": ari,
        "base": base,
        "tuned": tuned,
        **(heads or dict.fromkeys(("component_by_head", "mutual_information", "head_cosine"))),
        "router_entropy_at_start": prepared.router_entropy,
        "parameters": count_parameters(prepared.model),
        "base_model": BaseModelFiles.describe(prepared.files),
        "seconds": seconds,
    }
