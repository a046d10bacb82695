"""Scores on rows."""

from pathlib import Path
from typing import Self

from pydantic import ValidationError

from hydralora.errors import RunError
from hydralora.files import write_json
from hydralora.runs.records import Name, Record, Share


class Score(Record):
    """A measurement on some rows: mean loss on the answers (nats per token; None for NaN), exact match, rows."""

    loss: float | None
    exact_match: Share
    rows: int

    @property
    def loss_text(self) -> str:
        """The loss, for a table."""
        return "not a number" if self.loss is None else f"{self.loss:.3f}"


class Scores(Score):
    """A measurement on all rows, and on each group of them: by task, and by the component's number from 0."""

    per_task: dict[Name, Score]
    per_component: dict[Name, Score]

    def groups(self) -> dict[Name, Score]:
        """By task where rows have one, else by component."""
        return self.per_task or self.per_component


class RowScores(Record):
    """What was measured of each held-out row, in the order of `rows`, so that runs can be compared row by row.

    Attributes:
        rows: the rows' numbers in their file or, where none was given, in the dataset; from 1.
        losses: summed over the answer's tokens, in nats; None for NaN.
        tokens: of the answer.
        matched: whether the answer was matched exactly.
    """

    rows: list[int]
    losses: list[float | None]
    tokens: list[int]
    matched: list[bool]

    def write(self, folder: Path, split: str) -> None:
        """Write them into a folder.

        Args:
            split: "before" training, or "after".
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{split}.json", self.values())

    @classmethod
    def read(cls, folder: Path, split: str) -> Self | None:
        """What `write` has written; None if nothing was.

        Raises:
            RunError: the file is damaged.
        """
        try:
            return cls.model_validate_json((folder / f"{split}.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise RunError(f"{folder / split}.json can't be read ({reason}). Delete it, or train again.") from error


class SampleAnswer(Record):
    """The model's answer to a held-out prompt."""

    prompt: str
    expected: str
    answer: str
