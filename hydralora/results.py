"""What a run leaves behind: its adapter with a model card, and its measurements."""

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from hydralora.evaluation import gates_by_group
from hydralora.models import BaseModelFiles
from hydralora.preparation import Prepared
from hydralora.recipe import Recipe
from hydralora.tuner.model import count_parameters, hydra_layers

CARD = """---
library_name: peft
tags: [hydralora]
---
# {title}

Trained on `{base}` ({source}, weights sha256 `{hash}`) with {rows} rows in {k} components.

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
    folder = folder.resolve()
    building = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        model.save_pretrained(building, safe_serialization=True)
        (building / "README.md").write_text(_card(recipe, prepared), encoding="utf-8")
        _move(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return hash_adapter(folder)


def _move(building: Path, folder: Path) -> None:
    """Put a finished folder in its place; where files lie already, it replaces its own and leaves others alone."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # Trainer makes it when it starts
    if not folder.exists():
        os.replace(building, folder)
        return
    for file in sorted(building.iterdir(), key=lambda file: file.suffix == ".safetensors"):  # the weights last
        os.replace(file, folder / file.name)


def _card(recipe: Recipe, prepared: Prepared) -> str:
    base = prepared.files.describe()
    return CARD.format(
        title="HydraLoRA adapter" if recipe.method == "hydralora" else "LoRA adapter",
        base=base["id"],
        source=base["source"],
        hash=base["hash"],
        rows=len(prepared.train),
        k=prepared.k,
        recipe=recipe.to_yaml(),
    )


def hash_adapter(folder: Path) -> str:
    """sha256 of an adapter's weights."""
    with (folder / "adapter_model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def component_by_head(prepared: Prepared) -> list[list[float]] | None:
    """[i][j]: mean gate of head j on component i's held-out rows; None for an adapter without gates.

    A component without held-out rows gives an empty list.
    """
    if not hydra_layers(prepared.model):
        return None
    groups = gates_by_group(prepared.model, prepared.heldout, prepared.heldout_labels, prepared.tokenizer.pad_token_id)
    return [groups.get(component, []) for component in range(prepared.k)]


def describe_run(
    prepared: Prepared,
    base: dict[str, Any],
    tuned: dict[str, Any] | None,
    use: list[list[float]] | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """A run's measurements as plain values; ari is the components' adjusted Rand index against the
    tasks, None where rows have no task."""
    from sklearn.metrics import adjusted_rand_score

    clusters = prepared.clusters
    tasks = prepared.train_tasks
    ari = adjusted_rand_score(tasks, clusters.labels) if any(tasks) else None
    return {
        "rows": prepared.counts,
        "k": clusters.k,
        "sizes": clusters.sizes,
        "components": [{"id": c.id, "name": c.name, "size": c.size, "terms": c.terms} for c in clusters.components],
        "ari": ari,
        "base": base,
        "tuned": tuned,
        "component_by_head": use,
        "router_entropy_at_start": prepared.router_entropy,
        "parameters": count_parameters(prepared.model),
        "base_model": BaseModelFiles.describe(prepared.files),
        "seconds": seconds,
    }
