"""The loss on the answers' tokens; logits are computed only there."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from hydralora.data.batches import answers_in
from hydralora.models.adapters import inserted_outputs
from hydralora.models.attention import padded_right
from hydralora.tuner.rows import pass_rows, prompts_of, reads_rows

# (head's weight (vocabulary, hidden), its inputs (tokens, hidden), their targets, its bias) -> summed loss.
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
ROWS = 256  # tokens whose distributions over the vocabulary are compared at once
FUSED_TOLERANCE = 0.02  # nats per token, in bfloat16; a head with a cap or a scale differs more

_UNUSUAL: WeakSet[nn.Module] = WeakSet()  # heads that a model uses in a way that prevents selecting tokens
_FUSES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # whether a head's loss may be fused, as measured


def summed_answer_loss(
    model: Any, batch: dict[str, torch.Tensor], kernel: Kernel | None = None
) -> tuple[torch.Tensor, int]:
    """The sum of all answer tokens' cross-entropy, with its gradient, and their number.

    Where liger-kernel is installed (`pip install .[cuda]`) and the model is on CUDA, the output embedding is fused
    into the loss, so that no logits are kept. The first batch is also computed without it: a model that does more
    to its logits than that layer is never fused. `kernel` replaces the library's.
    """
    head = model.get_output_embeddings()
    kernel = kernel or (fused_kernel() if batch["input_ids"].is_cuda else None)
    if kernel and type(head) is nn.Linear and head not in _UNUSUAL and _FUSES.get(head, True):
        loss, count = _fused(model, head, batch, kernel)
        if head in _FUSES:
            return loss, count
        with torch.no_grad():
            plain = answer_loss(*answer_logits(model, batch)).sum()
        _FUSES[head] = bool((loss.detach() - plain).abs() <= FUSED_TOLERANCE * count)
        if _FUSES[head]:
            return loss, count
    logits, targets = answer_logits(model, batch)
    return answer_loss(logits, targets).sum(), len(targets)


@cache
def fused_kernel() -> Kernel | None:
    """liger-kernel's fused linear and cross-entropy; None where it is not installed."""
    try:
        from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return None
    return LigerFusedLinearCrossEntropyLoss(reduction="sum")


def _fused(model: Any, head: nn.Linear, batch: dict[str, torch.Tensor], kernel: Kernel) -> tuple[torch.Tensor, int]:
    answers, targets = _answers(model, batch)
    inputs: list[torch.Tensor] = []

    def take(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        inputs.append(_selected(args[0], answers))  # (answer tokens, hidden)
        return (args[0][:1, :0],)  # the layer itself needs no more input

    handle = head.register_forward_pre_hook(take)
    try:
        _forward(model, batch)
    finally:
        handle.remove()
    return kernel(head.weight, inputs[0], targets, head.bias), len(inputs[0])


def _answers(model: object, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of the outputs that predict an answer token, and those tokens' ids: each (answer tokens,).

    A model has an output for every token, and more before them if its adapter inserts virtual tokens.
    """
    known = batch if "answers" in batch else answers_in(batch["labels"])
    answers, inserted = known["answers"], inserted_outputs(model)
    if inserted:
        answers = answers + inserted * (answers // batch["labels"].shape[1] + 1)
    return answers, known["targets"]


def _selected(outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Of (batch, outputs, features), those with these numbers: (answer tokens, features)."""
    return outputs.flatten(0, 1).index_select(0, answers.to(outputs.device))


def answer_logits(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (answer tokens, vocabulary) that predict the labelled tokens, and those tokens' ids.

    A pre-hook on the output embedding keeps the positions before a label, so that caps and scales stay the model's
    own; most tokens are prompt, and the vocabulary is wide. If a model has no such layer, or doesn't compute its
    logits by one call of it on (batch, tokens, hidden), they are computed everywhere and selected afterwards.
    """
    answers, targets = _answers(model, batch)
    head = model.get_output_embeddings()
    logits = None
    if isinstance(head, nn.Module) and head not in _UNUSUAL:
        logits = _chosen(model, head, batch, answers)
        if logits is None:
            _UNUSUAL.add(head)
    if logits is None:
        logits = _selected(_forward(model, batch), answers)
    return logits, targets


def answer_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each answer token, in float32: (answer tokens,)."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def summed_divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """Sum over tokens of KL(p || q) in nats, from logits (tokens, vocabulary)."""
    total = 0.0
    for p_rows, q_rows in zip(p.split(ROWS), q.split(ROWS), strict=True):
        log_p, log_q = p_rows.float().log_softmax(-1), q_rows.float().log_softmax(-1)
        divergence = float((log_p.exp() * (log_p - log_q)).sum())
        total += 0.0 if divergence < 0 else divergence  # rounding alone can be negative
    return total


def _forward(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    padding = padded_right() if "answers" in batch else nullcontext()  # who collates pads on the right; others may not
    with batch_rows(model, batch), padding:
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits


def batch_rows(model: Any, batch: dict[str, torch.Tensor]) -> AbstractContextManager[None]:
    """What routers that read whole rows need to know of a batch: what comes before an answer, and the rows' heads."""
    if not reads_rows(model):
        return nullcontext()
    return pass_rows(model, prompts_of(batch["attention_mask"], batch["labels"]), batch.get("heads"))


def _chosen(model: Any, head: nn.Module, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor | None:
    """Logits (answer tokens, vocabulary), computed only there; None if the model's use of `head` prevents it."""
    rows, tokens = batch["labels"].shape
    choice = _Choice(answers, (rows, tokens + inserted_outputs(model)))
    handle = head.register_forward_pre_hook(choice)
    try:
        logits = _forward(model, batch)
    except RuntimeError as error:
        if not choice.calls or isinstance(error, torch.OutOfMemoryError):
            raise
        return None  # the model's next layer may need every token; any other error is raised again later
    finally:
        handle.remove()
    if choice.calls == 1 and logits.shape[:-1] == (1, choice.count):
        return logits[0]
    return None


class _Choice:
    """A forward pre-hook that selects the answers' positions of (batch, outputs, hidden), and counts its calls."""

    def __init__(self, answers: torch.Tensor, shape: tuple[int, int]) -> None:
        self.calls = 0
        self.count = len(answers)
        self._answers = answers
        self._shape = shape  # (batch, outputs)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor] | None:
        self.calls += 1
        if len(args) != 1 or args[0].shape[:-1] != self._shape:
            return None
        return (_selected(args[0], self._answers).unsqueeze(0),)  # (1, answer tokens, hidden)
