"""The loss on the answers' tokens, with logits computed nowhere else."""

from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from hydralora.data.templates import IGNORED

_UNUSUAL: WeakSet[nn.Module] = WeakSet()  # heads that a model uses in a way that allows no choice of tokens


def answer_logits(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (answer tokens, vocabulary) that predict the labelled tokens, and those tokens' ids.

    A pre-hook on the output embedding keeps the positions before a label, so that caps and scales stay the model's
    own; most tokens are prompt, and the vocabulary is wide. Where a model has no such layer, or doesn't make its
    logits by one call of it on (batch, tokens, hidden), they are computed everywhere and chosen afterwards.
    """
    targets = batch["labels"][:, 1:]
    wanted = targets != IGNORED  # (batch, tokens - 1)
    head = model.get_output_embeddings()
    logits = None
    if isinstance(head, nn.Module) and head not in _UNUSUAL:
        logits = _chosen(model, head, batch, wanted)
        if logits is None:
            _UNUSUAL.add(head)
    if logits is None:
        logits = _forward(model, batch)[:, :-1][wanted]
    return logits, targets[wanted]


def answer_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each answer token, in float32: (answer tokens,)."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def _forward(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits


def _chosen(model: Any, head: nn.Module, batch: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor | None:
    """Logits (answer tokens, vocabulary), computed where wanted; None where the model's use of `head` forbids it."""
    choice = _Choice(wanted, batch["input_ids"].shape)
    handle = head.register_forward_pre_hook(choice)
    try:
        logits = _forward(model, batch)
    except RuntimeError as error:
        if not choice.calls or isinstance(error, torch.OutOfMemoryError):
            raise
        return None  # the model's next layer may need every token; if that is not it, the error comes again
    finally:
        handle.remove()
    if choice.calls == 1 and logits.shape[:-1] == (1, choice.count):
        return logits[0]
    return None


class _Choice:
    """A forward pre-hook that keeps the wanted positions of (batch, tokens, hidden), and counts its calls."""

    def __init__(self, wanted: torch.Tensor, shape: torch.Size) -> None:
        self.calls = 0
        self.count = int(wanted.sum())
        self._wanted = wanted
        self._shape = shape  # (batch, tokens)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor] | None:
        self.calls += 1
        if len(args) != 1 or args[0].shape[:-1] != self._shape:
            return None
        return (args[0][:, :-1][self._wanted].unsqueeze(0),)  # (1, answer tokens, hidden)
