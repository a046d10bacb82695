"""A few of each run's losses, for the small pictures of the list; kept on disk, so that a list of many runs opens soon.

The file is a cache: a run's losses count only as long as its events are the file that they were read from, and a file
that is damaged, or of another version, is made again.
"""

import math
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hydralora.files import write_json
from hydralora.files.cache import FileStatus, checksum, file_status
from hydralora.runs.events import training_losses
from hydralora.runs.run import Run
from hydralora.runs.store import RUN_ID, RunStore

FILE = ".loss-curves.json"
LARGEST = 16 * 2**20  # bytes
MOST_POINTS = 40
STREAMED = 2**22  # bytes of events up to which all of them are read

Curve = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=MOST_POINTS + 1)]
RunId = Annotated[str, Field(pattern=f"^{RUN_ID.pattern}$")]


class _File(BaseModel):
    """Curves by run, each with the status of the events that it was read from."""

    model_config = ConfigDict(strict=True)
    version: Literal[1] = 1
    curves: dict[RunId, tuple[tuple[int, int, int, int], Curve]] = Field(default_factory=dict)
    checksum: str = ""


class LossCurves:
    """The curves of a workspace's runs."""

    def __init__(self, store: RunStore) -> None:
        self._path = store.folder / FILE
        self._known: dict[str, tuple[FileStatus, list[float]]] | None = None
        self._changed = False

    def of(self, run: Run) -> list[float]:
        """A few of a run's losses, in order.

        Raises:
            RunError: a line of its events holds none, or they can't be read.
        """
        known = self._read()
        status = file_status(run.events_file)
        if status is None:
            return []
        if run.id not in known or known[run.id][0] != status:
            curve = _curve(run, status)
            if not status.is_settled:
                return curve
            known[run.id] = status, curve
            self._changed = True
        return known[run.id][1]

    def save(self, listed: set[str]) -> None:
        """Keep what was read; runs that are not listed any more are dropped."""
        known = self._read()
        if not self._changed:
            return
        self._changed = False
        for run_id in set(list(known)) - listed:
            known.pop(run_id, None)
        finite = {run_id: entry for run_id, entry in list(known.items()) if all(map(math.isfinite, entry[1]))}
        with suppress(OSError):  # a workspace that is read-only, or a full disk
            write_json(self._path, {"version": 1, "curves": finite, "checksum": checksum(finite)})

    def _read(self) -> dict[str, tuple[FileStatus, list[float]]]:
        if self._known is None:
            try:
                with self._path.open("rb") as file:
                    stored = _File.model_validate_json(file.read(LARGEST))
            except (OSError, ValidationError):
                stored = _File()
            curves = stored.curves if checksum(stored.curves) == stored.checksum else {}
            self._known = {run_id: (FileStatus(*status), curve) for run_id, (status, curve) in curves.items()}
        return self._known


def _curve(run: Run, status: FileStatus) -> list[float]:
    events = run.each_event() if status.size <= STREAMED else run.sampled_events().look()
    losses = [loss for _, loss in training_losses(events)]
    every = max(1, -(-len(losses) // MOST_POINTS))
    return [*losses[:-1:every], *losses[-1:]]
