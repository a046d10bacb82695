"""Scores on rows."""

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


class SampleAnswer(Record):
    """The model's answer to a held-out prompt."""

    prompt: str
    expected: str
    answer: str
