"""The loss on the answers' tokens, with logits computed nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hydralora.data.templates import IGNORED


def answer_logits(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (answer tokens, vocabulary) that predict the labelled tokens, and those tokens' ids.

    A pre-hook on the output embedding keeps the positions before a label, so that caps and scales stay the model's
    own; most tokens are prompt, and the vocabulary is wide.
    """
    targets = batch["labels"][:, 1:]
    wanted = targets != IGNORED  # (batch, tokens - 1)
    with _only(model.get_output_embeddings(), wanted):
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    return output.logits[0], targets[wanted]


def answer_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each answer token, in float32: (answer tokens,)."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


@contextmanager
def _only(head: nn.Module, wanted: torch.Tensor) -> Iterator[None]:
    def keep(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (args[0][:, :-1][wanted].unsqueeze(0),)  # (1, answer tokens, hidden)

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
