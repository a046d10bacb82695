"""Reading an export back as its users load it, and comparing it with the run that was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hydralora.errors import RunError
from hydralora.inference.loss import answer_logits, summed_divergence
from hydralora.inference.model_cache import LoadedModel
from hydralora.models.adapters import put_adapter
from hydralora.models.loading import Quantization, load_base, load_model
from hydralora.tuner.published import load_official

Format = Literal["adapter", "lora", "merged", "official"]
Batch = dict[str, torch.Tensor]
EXACT = 1e-3  # nats per token: what rounding in half precision takes; a wrong weight takes far more
RELATIVE = 0.05  # of an approximation's own divergence
PROBE = (2, 32)  # rows and tokens that are read where no rows are at hand


@dataclass(frozen=True)
class Difference:
    """How far an export is from its run: mean KL divergence in nats per token, and the base that it holds for."""

    nats: float
    base: str

    def __str__(self) -> str:
        return f"{self.nats:.2g} nats per token from the run on {self.base}"


def read_back(
    loaded: LoadedModel, quantization: Quantization, form: Format, folder: Path, batches: Sequence[Batch], kl: float
) -> list[Difference]:
    """Load an export as its users do, and compare its predictions with the run's.

    Args:
        loaded: the run.
        quantization: of the base model that it was trained on.
        batches: what both read; empty: random tokens.
        kl: the divergence that the export is known to have, 0 for an exact one.

    Returns:
        The difference on the run's own base model; and, if that is quantised, on the one in full precision.

    Raises:
        RunError: the export is not the model that was measured.
    """
    batches = batches or [_probe(loaded.model)]
    with torch.inference_mode():
        expected = [answer_logits(loaded.model, batch)[0].float().cpu() for batch in batches]
    found = []
    precisions: list[Quantization] = ["none"] if form == "merged" else list(dict.fromkeys((quantization, "none")))
    for precision in precisions:
        model = _load(loaded, precision, form, folder)
        words = "its base model" if precision == quantization else "the base model in full precision"
        found.append(Difference(_divergence(model, batches, expected), "its own" if form == "merged" else words))
    if abs(found[0].nats - kl) > EXACT + RELATIVE * kl:
        raise RunError(
            f"The export is not the model that was measured: it is {found[0]}, where {kl:.2g} are expected. Nothing "
            "is kept. Export the adapter instead."
        )
    return found


def _load(loaded: LoadedModel, quantization: Quantization, form: Format, folder: Path) -> Any:
    if form == "merged":
        return load_model(folder)
    base = load_base(loaded.files, quantization=quantization)
    return load_official(base, folder) if form == "official" else put_adapter(loaded.files, base, folder)


@torch.inference_mode()
def _divergence(model: Any, batches: Sequence[Batch], expected: Sequence[torch.Tensor]) -> float:
    device = next(model.parameters()).device
    total = tokens = 0.0
    for batch, logits in zip(batches, expected, strict=True):
        own, _ = answer_logits(model, {key: value.to(device) for key, value in batch.items()})
        total += summed_divergence(logits, own.float().cpu())
        tokens += len(logits)
    return total / tokens


def _probe(model: Any) -> Batch:
    ids = torch.randint(0, model.config.get_text_config().vocab_size, PROBE, generator=torch.Generator().manual_seed(0))
    ids = ids.to(next(model.parameters()).device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
