"""Reading of uploaded files, which may hold anything, in a process of their own under a memory limit."""

from collections.abc import Sequence
from pathlib import Path

from hydralora.data.dataset import Dataset, read_before, read_dataset
from hydralora.data.mapping import Mapping
from hydralora.data.progress import OnProgress, ignore_progress

from .processes import in_process

MEMORY = 2 * 2**30  # bytes for reading and tokenising files


def read_files(
    files: Sequence[Path], mapping: Mapping | None = None, on_progress: OnProgress = ignore_progress
) -> Dataset:
    """`read_dataset` of files, which are only mapped into this process's memory once they are read.

    Raises:
        HydraError: they can't be read, or that takes too much memory.
    """
    known = read_before(files, mapping)
    if known:
        return known
    in_process(_read, files, mapping, on_progress=on_progress, memory=MEMORY)
    return read_dataset(files, mapping)


def _read(files: Sequence[Path], mapping: Mapping | None, on_progress: OnProgress) -> None:
    read_dataset(files, mapping, on_progress=on_progress)
