"""Scores of a base model on rows, kept for other runs: they don't depend on what is trained."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from hydralora.data.encoding import Encoded
from hydralora.errors import RunError
from hydralora.runs.scores import RowScores

SPLIT = "before"


class BaseScores:
    """A base model's scores, in a folder that runs share."""

    def __init__(self, folder: Path, base: str) -> None:
        """
        Args:
            base: what the scores depend on beside the rows: the model's hash, its quantization, the device.
        """
        self._folder, self._base = folder, base

    def of(self, rows: Sequence[Encoded], measure: Callable[[], RowScores]) -> RowScores:
        """The scores of these rows; measured if they are not known yet."""
        encoded = [(row.example.row, row.input_ids, row.labels) for row in rows]
        digest = hashlib.sha256(json.dumps([self._base, encoded]).encode()).hexdigest()
        folder = self._folder / digest[:32]
        try:
            known = RowScores.read(folder, SPLIT)
        except RunError:  # a damaged file is written again
            known = None
        if known:
            return known
        scores = measure()
        scores.write(folder, SPLIT)
        return scores
