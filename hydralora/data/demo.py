"""The location of the files that are part of the package: datasets, a run and finished studies."""

from pathlib import Path
from typing import Literal


def shipped_folder(name: Literal["demo", "gallery", "sets", "studies"]) -> Path:
    """A folder of shipped files, in an installed package or in a checkout."""
    here = Path(__file__).parent
    installed = here / "assets" / name
    return installed if installed.is_dir() else here.parents[1] / "assets" / name


def demo_file(name: Literal["train", "heldout"]) -> Path:
    """A file of the demo dataset."""
    return shipped_folder("demo") / f"{name}.jsonl"


def shipped_data(name: str) -> tuple[Path, Path | None] | None:
    """The training rows, and the held-out ones if they are in a file of their own, of a dataset by its name.

    `demo`; `conflict`, whose tasks contradict each other on the same inputs; `single`, one of these tasks alone. None:
    there is no such dataset.
    """
    if name == "demo":
        return demo_file("train"), demo_file("heldout")
    return (shipped_folder("sets") / f"{name}.jsonl", None) if name in ("conflict", "single") else None
