"""Loss and exact match on held-out rows, per task and per component."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hydralora.data.batches import batch_order, collate
from hydralora.data.encoding import IGNORED, Encoded
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.inference.loss import answer_logits, answer_loss
from hydralora.runs.scores import RowScores, Score, Scores

BATCH = 16  # rows; evaluation keeps nothing for a backward pass


@torch.no_grad()
def evaluate(
    model: Any,
    rows: Sequence[Encoded],
    pad_token_id: int,
    on_progress: OnProgress = ignore_progress,
    components: Sequence[int] | None = None,
) -> Scores:
    """Mean answer loss (nats per token) and exact match (0-1): overall, per task and per component if rows have one."""
    return summary(evaluate_rows(model, rows, pad_token_id, on_progress), rows, components)


@torch.no_grad()
def evaluate_rows(
    model: Any, rows: Sequence[Encoded], pad_token_id: int, on_progress: OnProgress = ignore_progress
) -> RowScores:
    """Loss and exact match of each row, in their order.

    A row matches exactly if greedy decoding reproduces its answer token for token, up to the end-of-turn mark. That is
    so if each answer token is the most likely one after the true tokens before it, so one forward pass decides it
    without generating.
    """
    measured: dict[int, tuple[float | None, int, bool]] = {}
    for indices, batch in batches(model, rows, pad_token_id):
        logits, targets = answer_logits(model, batch)
        losses = answer_loss(logits, targets)
        right = logits.argmax(-1) == targets
        counts = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
        for index, loss, hit in zip(indices, losses.split(counts), right.split(counts), strict=True):
            summed = float(loss.sum())
            measured[index] = None if math.isnan(summed) else summed, len(loss), bool(hit.all())
        on_progress(len(measured), len(rows))
    in_order = [measured[index] for index in range(len(rows))]
    return RowScores(
        rows=[row.example.row for row in rows],
        losses=[loss for loss, _, _ in in_order],
        tokens=[tokens for _, tokens, _ in in_order],
        matched=[matched for _, _, matched in in_order],
    )


def summary(scores: RowScores, rows: Sequence[Encoded], components: Sequence[int] | None = None) -> Scores:
    """The means over all rows, and over those of each task and component; a row without one is in none."""
    groups: dict[str, dict[str, list[int]]] = {"per_task": defaultdict(list), "per_component": defaultdict(list)}
    for i, row in enumerate(rows):
        if row.example.task:
            groups["per_task"][row.example.task].append(i)
        if components:
            groups["per_component"][str(components[i])].append(i)
    means = {
        name: {group: _mean(scores, indices) for group, indices in sorted(members.items())}
        for name, members in groups.items()
    }
    return Scores(**_mean(scores, range(len(rows))).model_dump(), **means)


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


def _mean(scores: RowScores, indices: Sequence[int]) -> Score:
    losses = [scores.losses[i] for i in indices]
    tokens = sum(scores.tokens[i] for i in indices)
    return Score(
        loss=None if None in losses else sum(loss for loss in losses if loss is not None) / tokens,
        exact_match=sum(scores.matched[i] for i in indices) / len(indices),
        rows=len(indices),
    )
