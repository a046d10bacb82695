"""The location of the demo dataset, which is part of the package."""

from pathlib import Path
from typing import Literal


def demo_file(name: Literal["train", "heldout"]) -> Path:
    """A file of the demo dataset, in an installed package or in a checkout."""
    here = Path(__file__).parent
    installed = here / "assets" / "demo"
    folder = installed if installed.is_dir() else here.parents[1] / "assets" / "demo"
    return folder / f"{name}.jsonl"
