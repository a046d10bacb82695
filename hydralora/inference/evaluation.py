"""Loss and exact match on held-out rows, per task and per component."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from hydralora.data.batches import batch_order, collate
from hydralora.data.encoding import IGNORED, Encoded
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.inference.loss import answer_logits, answer_loss
from hydralora.runs.scores import Score, Scores

BATCH = 16  # rows; evaluation keeps nothing for a backward pass


@torch.no_grad()
def evaluate(
    model: Any,
    rows: Sequence[Encoded],
    pad_token_id: int,
    on_progress: OnProgress = ignore_progress,
    components: Sequence[int] | None = None,
) -> Scores:
    """Mean answer loss (nats per token) and exact match (0-1): overall, per task and per component if rows have one.

    A row matches exactly if greedy decoding reproduces its answer token for token, up to the end-of-turn mark. That is
    so if each answer token is the most likely one after the true tokens before it, so one forward pass decides it
    without generating.
    """
    measured: list[_RowScore] = []
    for indices, batch in batches(model, rows, pad_token_id):
        logits, targets = answer_logits(model, batch)
        losses = answer_loss(logits, targets)
        right = logits.argmax(-1) == targets
        counts = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
        for index, loss, hit in zip(indices, losses.split(counts), right.split(counts), strict=True):
            measured.append(_RowScore(index, float(loss.sum()), len(loss), bool(hit.all())))
        on_progress(len(measured), len(rows))
    tasks = [row.example.task or None for row in rows]
    return Scores(
        **_summary(measured).model_dump(),
        per_task=_by_group(measured, tasks),
        per_component=_by_group(measured, list(map(str, components or ()))),
    )


def predicting(labels: torch.Tensor) -> torch.Tensor:
    """Mask (batch, tokens) of the positions whose output predicts an answer token: those one before a label."""
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORED
    return mask


def batches(
    model: Any, rows: Sequence[Encoded], pad_token_id: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Batches of rows of similar length, on the model's device, with the rows' indices."""
    device = next(model.parameters()).device
    for indices in batch_order([len(row.input_ids) for row in rows], BATCH, seed=0, epoch=0):
        batch = collate([rows[i] for i in indices], pad_token_id)
        yield indices, {key: value.to(device) for key, value in batch.items()}


class _RowScore(NamedTuple):
    row: int
    loss: float  # summed over the answer's tokens
    tokens: int
    matched: bool


def _by_group(measured: Sequence[_RowScore], groups: Sequence[str | None]) -> dict[str, Score]:
    """The summary of each group's rows; a row without a group is in none."""
    members: dict[str, list[_RowScore]] = defaultdict(list)
    for score in measured:
        if groups and (group := groups[score.row]) is not None:
            members[group].append(score)
    return {group: _summary(scores) for group, scores in sorted(members.items())}


def _summary(measured: Sequence[_RowScore]) -> Score:
    return Score(
        loss=sum(score.loss for score in measured) / sum(score.tokens for score in measured),
        exact_match=sum(score.matched for score in measured) / len(measured),
        rows=len(measured),
    )
