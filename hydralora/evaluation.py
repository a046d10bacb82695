"""Loss and exact match on held-out rows, per task and per component."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from hydralora.data.batches import batch_order, collate
from hydralora.data.templates import IGNORED, Encoded
from hydralora.gates import mean_gates, record_gates
from hydralora.loss import answer_logits, answer_loss

BATCH = 16  # rows; evaluation keeps nothing for a backward pass


@torch.no_grad()
def evaluate(
    model: Any, rows: Sequence[Encoded], pad_token_id: int, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Mean answer loss (nats a token), exact match (0-1), and both per task where rows have one.

    A row matches exactly where greedy decoding reproduces its answer token for token, up to the end-of-turn mark.
    Greedy decoding does that exactly where each answer token is the most likely one after the true tokens before it,
    so one forward pass tells, without generating.
    """
    scores: list[tuple[int, float, int, bool]] = []  # (row, loss sum, answer tokens, matched)
    for indices, batch in _batches(model, rows, pad_token_id):
        logits, targets = answer_logits(model, batch)
        losses = answer_loss(logits, targets)
        right = logits.argmax(-1) == targets
        counts = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
        for index, loss, hit in zip(indices, losses.split(counts), right.split(counts), strict=True):
            scores.append((index, float(loss.sum()), len(loss), bool(hit.all())))
        if on_progress:
            on_progress(len(scores), len(rows))
    by_task: dict[str, list] = defaultdict(list)
    for score in scores:
        by_task[rows[score[0]].example.task or ""].append(score)
    per_task = {task: _summary(group) for task, group in sorted(by_task.items()) if task}
    return _summary(scores) | {"per_task": per_task}


@torch.no_grad()
def gates_by_group(
    model: Any, rows: Sequence[Encoded], labels: Sequence[int], pad_token_id: int
) -> dict[int, list[float]]:
    """Mean gate of every head over the answers' tokens and all adapted layers, for the rows of each label."""
    sums: dict[int, torch.Tensor] = {}
    counts: dict[int, int] = defaultdict(int)
    for indices, batch in _batches(model, rows, pad_token_id):
        with record_gates(model) as record:
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        means = mean_gates(record.stacked(), predicting(batch["labels"])).mean(0)  # (batch, N)
        for index, gates in zip(indices, means, strict=True):
            label = labels[index]
            sums[label] = sums.get(label, torch.zeros_like(gates)) + gates
            counts[label] += 1
    return {label: (sums[label] / counts[label]).tolist() for label in sorted(sums)}


def predicting(labels: torch.Tensor) -> torch.Tensor:
    """Mask (batch, tokens) of the positions whose output predicts an answer token: those one before a label."""
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORED
    return mask


def _batches(
    model: Any, rows: Sequence[Encoded], pad_token_id: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    device = next(model.parameters()).device
    for indices in batch_order([len(row.input_ids) for row in rows], BATCH, seed=0, epoch=0):
        batch = collate([rows[i] for i in indices], pad_token_id)
        yield indices, {key: value.to(device) for key, value in batch.items()}


def _summary(scores: Sequence[tuple[int, float, int, bool]]) -> dict[str, Any]:
    tokens = sum(score[2] for score in scores)
    return {
        "loss": sum(score[1] for score in scores) / tokens,
        "exact_match": sum(score[3] for score in scores) / len(scores),
        "rows": len(scores),
    }
