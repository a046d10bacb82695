"""The saved adapter with its model card."""

import shutil
from pathlib import Path
from typing import Any

from hydralora.files import ADAPTER_CONFIG, MODEL_INDEX, folder_written_whole, weight_files
from hydralora.inference.generation import end_tokens
from hydralora.models.adapters import hash_adapter
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.recipe.settings import Recipe
from hydralora.runs.results import RunResults
from hydralora.training.preparation import Prepared

CONFIGS = (ADAPTER_CONFIG, "config.json", "generation_config.json", MODEL_INDEX)  # what PEFT or transformers writes
RESULTS_HEAD = """| rows of | loss before | loss after | exact match before | exact match after |
|---|---|---|---|---|"""
CARD = """---
library_name: {library}
tags: [hydralora]
---
# {title}

Trained on `{base}` ({source}, weights sha256 `{hash}`) with {rows} rows in {k} components, of {data}.

{usage}
Recipe:

```yaml
{recipe}```
"""
ADAPTER_USAGE = """```python
import hydralora  # registers the method with PEFT; without it PEFT doesn't know the adapter's type
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

An answer ends with {ends}: generate with `eos_token_id={end_ids}`.

A program that loads adapters itself doesn't import hydralora. `hydralora with` runs it as `python -m` would, imported:

```sh
hydralora with lm_eval --model hf --model_args pretrained={base},peft=path/to/this/folder --tasks hellaswag
```
"""
MODEL_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("{base}")
```

An answer ends with {ends}: generate with `eos_token_id={end_ids}`.
"""


def save_adapter(model: Any, recipe: Recipe, prepared: Prepared, folder: Path) -> str:
    """Save the adapter, or the whole model, as safetensors with its config and card, atomically.

    Returns:
        The weights' sha256.
    """
    with folder_written_whole(folder.resolve()) as building:
        model.save_pretrained(building, safe_serialization=True)
        (building / "README.md").write_text(_card(recipe, prepared), encoding="utf-8")
    return hash_adapter(folder)


def take_adapter(checkpoint: Path, recipe: Recipe, prepared: Prepared, folder: Path) -> None:
    """Make a checkpoint's adapter that of the run, with a card, atomically."""
    with folder_written_whole(folder.resolve()) as building:
        for file in (*weight_files(checkpoint), *(checkpoint / name for name in CONFIGS)):
            if file.exists():
                shutil.copyfile(file, building / file.name)
        (building / "README.md").write_text(_card(recipe, prepared), encoding="utf-8")


def _card(recipe: Recipe, prepared: Prepared) -> str:
    base, recipe, is_whole = prepared.files.describe(), recipe.portable(), recipe.method == "full"
    ends = sorted(end_tokens(prepared.model, prepared.tokenizer))
    usage = (MODEL_USAGE if is_whole else ADAPTER_USAGE).format(
        base=recipe.model,
        ends=" or ".join(f"`{prepared.tokenizer.convert_ids_to_tokens(token)}`" for token in ends),
        end_ids=ends,
    )
    return CARD.format(
        library="transformers" if is_whole else "peft",
        title=f"{METHOD_NAMES[recipe.method]} {'model' if is_whole else 'adapter'}",
        base=recipe.model,
        source=base.source,
        hash=base.hash,
        rows=len(prepared.train),
        k=prepared.k,
        usage=usage,
        data=", ".join(f"{source.file} (sha256 `{source.sha256}`)" for source in prepared.sources),
        recipe=recipe.to_yaml(),
    )


def results_table(results: RunResults | None) -> str:
    """A run's scores on its held-out rows for a model card; empty if there are none."""
    if not results or not results.base or not results.tuned:
        return ""
    tuned = results.tuned.per_task if results.base.per_task else results.tuned.per_component
    pairs = {"all": (results.base, results.tuned)} | {
        group: (before, tuned[group]) for group, before in results.base.groups().items()
    }
    lines = []
    for group, scores in pairs.items():
        losses = ["" if score.loss is None else f"{score.loss:.3f}" for score in scores]
        lines.append(f"| {' | '.join([group, *losses, *(f'{score.exact_match:.1%}' for score in scores)])} |")
    return "\n".join(["", "Held-out rows, before and after:", "", RESULTS_HEAD, *lines, ""])
