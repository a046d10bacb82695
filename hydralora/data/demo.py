"""The location of the files that are part of the package: the demo dataset, and the run that was trained on it."""

from pathlib import Path
from typing import Literal


def shipped_folder(name: Literal["demo", "gallery"]) -> Path:
    """A folder of shipped files, in an installed package or in a checkout."""
    here = Path(__file__).parent
    installed = here / "assets" / name
    return installed if installed.is_dir() else here.parents[1] / "assets" / name


def demo_file(name: Literal["train", "heldout"]) -> Path:
    """A file of the demo dataset."""
    return shipped_folder("demo") / f"{name}.jsonl"
