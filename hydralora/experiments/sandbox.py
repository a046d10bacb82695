"""A run to watch: a slice of the demo dataset and a tiny adapter, trained in under a minute on two cores of a CPU."""

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from hydralora.data.dataset import read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.examples import Example
from hydralora.files import write_text
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe

SKILLS = 4  # of the demo: a head for each
ROWS = 4  # of each skill, the shortest ones: the router starts from all of them, and a batch has those of one skill
HELD_OUT = 1
BLOCKS = 2  # the last ones: the backward pass ends there
STEPS = 12
NAME = "Demo slice"


class Slice(NamedTuple):
    """Files of rows, for training and held out."""

    train: Path
    heldout: Path


def write_slice(folder: Path) -> Slice:
    """Write the shortest rows of each of the demo's skills into a folder, in turns."""
    files = Slice(folder / f"{NAME}.jsonl", folder / f"{NAME}, held out.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    parts = (demo_file("train"), files.train, ROWS), (demo_file("heldout"), files.heldout, HELD_OUT)
    for source, target, count in parts:
        by_skill: dict[str, list[Example]] = defaultdict(list)
        for row in sorted(read_dataset(source).examples, key=lambda row: len(row.everything)):
            by_skill[row.task or ""].append(row)
        chosen = [rows[i] for i in range(count) for rows in by_skill.values()]
        lines = [json.dumps({"question": row.question, "answer": row.answer, "task": row.task}) for row in chosen]
        write_text(target, "\n".join(lines) + "\n")
    return files


def is_sandbox(recipe: Recipe) -> bool:
    """Whether a recipe trains on such a slice."""
    return any(Path(file).stem == NAME for file in recipe.data.train_files)


def sandbox_recipe(model: str, blocks: int, files: Slice) -> Recipe:
    """The recipe of a run to watch.

    Its router starts from the components, since heads that start at zero part only where their gates differ. One
    thread leaves the other cores to the page.

    Args:
        model: a base model's id or folder, with `blocks` blocks.
    """
    return parse_recipe(
        {
            "model": model,
            "data": {"train": str(files.train), "eval": str(files.heldout)},
            "tuner": {
                "r": 4,
                "num_heads": SKILLS,
                "lora_alpha": 8,
                "router_entropy": 0.4,
                "layers_to_transform": list(range(max(0, blocks - BLOCKS), blocks)),
            },
            "training": {
                "max_steps": STEPS,
                "batch_size": ROWS,
                "learning_rate": 4e-3,
                "eval_every": 0,
                "sample_prompts": 0,
                "save_every": 0,
                "snapshots": STEPS,
                "log_every": 1,
                "threads": 1,
            },
        },
        "The sandbox",
    )
