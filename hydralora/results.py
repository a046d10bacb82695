"""What a run leaves behind: its adapter with a model card, and its measurements."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from hydralora.analysis import head_similarity, model_weights
from hydralora.clustering import overlap
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, folder_written_whole
from hydralora.models import BaseModelFiles
from hydralora.preparation import Prepared
from hydralora.probing import head_use
from hydralora.recipe import Recipe
from hydralora.tuner.model import count_parameters, hydra_layers

METHODS = {
    "hydralora": "HydraLoRA",
    "lora": "LoRA",
    "lora-split": "LoRA-Split",
    "uniform": "HydraLoRA without a router",
}
RESULTS_HEAD = """| rows of | loss before | loss after | exact match before | exact match after |
|---|---|---|---|---|"""
CARD = """---
library_name: peft
tags: [hydralora]
---
# {title}

Trained on `{base}` ({source}, weights sha256 `{hash}`) with {rows} rows in {k} components, of {data}.

```python
import hydralora  # registers the method with PEFT; without it PEFT doesn't know the adapter's type
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

Recipe:

```yaml
{recipe}```
"""


def save_adapter(model: Any, recipe: Recipe, prepared: Prepared, folder: Path) -> str:
    """Save the adapter as safetensors with its config and card, whole or not at all; returns the weights' sha256."""
    with folder_written_whole(folder.resolve()) as building:
        model.save_pretrained(building, safe_serialization=True)
        (building / "README.md").write_text(_card(recipe, prepared), encoding="utf-8")
    return hash_adapter(folder)


def take_adapter(checkpoint: Path, recipe: Recipe, prepared: Prepared, folder: Path) -> None:
    """Make a checkpoint's adapter that of the run, with a card, whole or not at all."""
    with folder_written_whole(folder.resolve()) as building:
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(checkpoint / name, building / name)
        (building / "README.md").write_text(_card(recipe, prepared), encoding="utf-8")


def _card(recipe: Recipe, prepared: Prepared) -> str:
    base, recipe = prepared.files.describe(), recipe.portable()
    return CARD.format(
        title=f"{METHODS[recipe.method]} adapter",
        base=recipe.model,
        source=base["source"],
        hash=base["hash"],
        rows=len(prepared.train),
        k=prepared.k,
        data=", ".join(f"{source['file']} (sha256 `{source['sha256']}`)" for source in prepared.sources),
        recipe=recipe.to_yaml(),
    )


def results_table(results: dict[str, Any]) -> str:
    """A run's measurements on its held-out rows, as a part of a model card; empty where there are none."""
    base, tuned = results.get("base"), results.get("tuned")
    if not base or not tuned:
        return ""
    key = "per_task" if base["per_task"] else "per_component"
    groups = [("all", base, tuned)] + [(group, base[key][group], tuned[key][group]) for group in base[key]]
    lines = []
    for group, before, after in groups:
        losses = [f"{scores['loss']:.3f}" if scores["loss"] is not None else "" for scores in (before, after)]
        shares = [f"{scores['exact_match']:.1%}" for scores in (before, after)]
        lines.append(f"| {' | '.join([group, *losses, *shares])} |")
    return "\n".join(["", "Held-out rows, before and after:", "", RESULTS_HEAD, *lines, ""])


def hash_adapter(folder: Path) -> str:
    """sha256 of an adapter's weights."""
    with (folder / ADAPTER_WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
