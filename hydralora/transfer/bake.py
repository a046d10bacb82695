"""Baking: one fixed mixture of the heads replaces the router, which gives a plain LoRA that any LoRA loader reads."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from hydralora.data.encoding import IGNORED
from hydralora.errors import ConfigError
from hydralora.files import ADAPTER_WEIGHTS
from hydralora.inference.evaluation import predicting
from hydralora.inference.loss import answer_logits, summed_divergence
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.gates import record_gates
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import PREFIX, HydraLoraModel, active_adapter, active_router, head_matrices, scale_factor
from hydralora.tuner.published import active_config, written_whole

Batch = dict[str, torch.Tensor]
CARD = """---
library_name: peft
tags: [lora, hydralora]
---
# LoRA made from a HydraLoRA adapter

{description}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


@dataclass(frozen=True)
class Baked:
    """A plain LoRA that approximates a HydraLoRA adapter.

    Attributes:
        config: PEFT's own config of it.
        state: its weights, named as PEFT saves them, on the CPU.
        weights: the share of every head in the mixture, by module: N floats each.
        kl: mean KL divergence in nats per token from the routed model to the baked one, over the tokens that the
            batches predict; None if none were given.
        tokens: number of those tokens.
        mixture: the source of the weights, in words.
    """

    config: LoraConfig
    state: dict[str, torch.Tensor]
    weights: dict[str, list[float]]
    kl: float | None
    tokens: int
    mixture: str

    def save(self, folder: str | Path) -> None:
        """Write adapter_config.json, adapter_model.safetensors and a card, atomically.

        `PeftModel.from_pretrained` reads them without this package.

        Raises:
            ConfigError: `folder` holds a HydraLoRA adapter, which would be lost.
            ModelError: `folder` can't be written.
        """
        base = self.config.base_model_name_or_path or "path/to/the/base/model"
        with written_whole(folder) as building:
            self.config.save_pretrained(str(building))
            (building / "README.md").write_text(CARD.format(description=self.describe(), base=base), encoding="utf-8")
            save_file(self.state, building / ADAPTER_WEIGHTS, metadata={"format": "pt"})

    def _ranks(self) -> str:
        """Its rank, or its smallest and its largest."""
        ranks = [len(value) for key, value in self.state.items() if key.endswith(".lora_A.weight")]
        return str(min(ranks)) if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"

    def describe(self) -> str:
        """A few sentences on what it is and how far it is from the routed model."""
        total = sum(next(iter(self.weights.values())))
        sentences = [
            f"A plain LoRA of rank {self._ranks()} on {len(self.weights)} layers: one fixed mixture of the heads, "
            f"{self.mixture}, while HydraLoRA mixes them for every token. It is an approximation.",
            "Its divergence from the routed model was not measured."
            if self.kl is None
            else f"Its mean KL divergence from the routed model is {self.kl:.4g} nats per token, over "
            f"{self.tokens:,} tokens.",
        ]
        if not math.isclose(total, 1, abs_tol=1e-3):
            sentences.append(f"Its weights sum to {total:.4g}, where the router's gates sum to 1.")
        if self.config.modules_to_save:
            sentences.append(
                f"It contains {', '.join(self.config.modules_to_save)} in full, which PEFT loads; vLLM and llama.cpp "
                "refuse such adapters."
            )
        return " ".join(sentences)


@torch.no_grad()
def bake(
    model: nn.Module,
    weights: str | int | Sequence[float] = "mean",
    batches: Iterable[Mapping[str, Any]] | None = None,
) -> Baked:
    """Make a plain LoRA from the active adapter: sum_i w_i B_i is one matrix after the shared A.

    Gates change from token to token and the w_i don't, so this is an approximation; `kl` measures it. The rank stays
    r; if A is not shared, it is r times the number of heads with a weight. The model is not changed.

    Args:
        model: a model with one active HydraLoRA adapter, on the device to measure on.
        weights: "mean", every module's own mean gates on `batches`; a head's index, for that head alone; or N numbers.
        batches: the data to measure on: mappings with `input_ids` (batch, tokens) and, optionally, `attention_mask`
            and `labels` (-100 is ignored). Gates and divergence are taken at positions that predict a label; without
            labels, a token. All batches are held in memory.

    Raises:
        ConfigError: no such head, another number of weights, "mean" without batches, batches that predict no token,
            or a model whose adapter is switched off or steered.
    """
    config, layers = active_config(model, "bake")
    _refuse_other_gates(layers)
    by_data = isinstance(weights, str) and weights == "mean"
    fixed = [] if by_data else _checked(weights, config.num_heads)
    if by_data and batches is None:
        raise ConfigError(
            "bake: 'mean' is each module's mean gates on batches. Give batches, a head's index or weights."
        )
    read = None if batches is None else _read(batches, next(model.parameters()).device)
    tokens = sum(int(predicting(batch["labels"]).sum()) for batch in read or ())
    with _evaluating(model):
        shares = _mean_gates(model, layers, read or [], tokens) if by_data else dict.fromkeys(layers, fixed)
        kl = None if read is None else _divergence(model, layers, shares, read) / tokens
    used_heads = [i for i in range(config.num_heads) if any(of_module[i] for of_module in shares.values())]
    return Baked(
        config=_lora_config(config, layers, 1 if config.shared_A else len(used_heads)),
        state=_lora_state(model, config, layers, shares, used_heads),
        weights={name: list(of_module) for name, of_module in shares.items()},
        kl=kl,
        tokens=tokens,
        mixture=_in_words(weights, fixed, tokens),
    )


def _refuse_other_gates(layers: dict[str, HydraLoraLayer]) -> None:
    if any(layer.disable_adapters for layer in layers.values()):
        raise ConfigError("bake: the adapter is switched off. Bake outside disable_adapter.")
    if any(active_router(layer).steering is not None for layer in layers.values()):
        raise ConfigError("bake: the gates are steered. Bake outside steer_gates.")


def _checked(weights: str | int | Sequence[float], num_heads: int) -> list[float]:
    """The share of every head by `weights`: N floats."""
    expected = "Give 'mean', a head's index from 0, or one number for each head"
    if isinstance(weights, (str, bool)):
        raise ConfigError(f"bake: weights is {weights!r}. {expected}.")
    if isinstance(weights, int):
        if not 0 <= weights < num_heads:
            raise ConfigError(f"bake: weights names head {weights}; the adapter's heads are 0 to {num_heads - 1}.")
        return [float(i == weights) for i in range(num_heads)]
    try:
        shares = [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"bake: weights is {weights!r}. {expected}.") from error
    if len(shares) != num_heads or not all(map(math.isfinite, shares)) or not any(shares):
        raise ConfigError(f"bake: weights is {shares} for {num_heads} heads. {expected}: finite, and not all 0.")
    return shares


def _in_words(weights: str | int | Sequence[float], shares: list[float], tokens: int) -> str:
    if isinstance(weights, str):
        return f"by their mean gates over {tokens:,} tokens, layer by layer"
    if isinstance(weights, int):
        return f"head {weights} alone"
    return f"by the weights {', '.join(f'{share:.4g}' for share in shares)}"


def _read(batches: Iterable[Mapping[str, Any]], device: torch.device) -> list[Batch]:
    """The batches with defaults for missing tensors, without batches that predict no token."""
    read: list[Batch] = []
    for values in batches:
        if not isinstance(values, Mapping) or "input_ids" not in values:
            actual = ", ".join(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise ConfigError(f"bake: a batch is a mapping with input_ids (batch, tokens); found {actual}.")
        batch = {
            key: torch.as_tensor(values[key]) for key in ("input_ids", "attention_mask", "labels") if key in values
        }
        mask = batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
        if "labels" not in batch:
            labels = batch["input_ids"].masked_fill(mask == 0, IGNORED)
            labels[:, 1:][mask[:, :-1] == 0] = IGNORED  # a row's first token, which only padding would predict
            batch["labels"] = labels
        if predicting(batch["labels"]).any():
            read.append({key: value.to(device) for key, value in batch.items()})
    if not read:
        raise ConfigError("bake: the batches predict no token. Give rows with labels, or of two tokens or more.")
    return read


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards every module's mode is restored."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _mean_gates(
    model: nn.Module, layers: dict[str, HydraLoraLayer], batches: list[Batch], tokens: int
) -> dict[str, list[float]]:
    """Every module's mean gates over the positions that predict a label: N floats each."""
    sums: dict[str, torch.Tensor] = {}
    for batch in batches:
        with record_gates(model) as record:
            answer_logits(model, batch)
        mask = predicting(batch["labels"]).cpu()  # (batch, tokens)
        for name, gates in zip(record.modules, record.stacked(), strict=True):  # (batch, tokens, N)
            sums[name] = sums.get(name, 0) + gates[mask].double().sum(0)
    unused = [name for name in layers if name not in sums]
    if unused:
        raise ConfigError(f"bake: no batch reached {unused[0]}, so it has no mean gates. Give weights in numbers.")
    return {name: (sums[name] / tokens).tolist() for name in layers}


def _divergence(
    model: nn.Module, layers: dict[str, HydraLoraLayer], shares: dict[str, list[float]], batches: list[Batch]
) -> float:
    """Sum over the predicted tokens of KL(routed || baked), in nats.

    Constant gates give the baked LoRA's output, so no second model is needed.
    """
    total = 0.0
    for batch in batches:
        routed, _ = answer_logits(model, batch)  # (predicted tokens, vocabulary)
        with _constant_gates(layers, shares):
            baked, _ = answer_logits(model, batch)
        total += summed_divergence(routed, baked)
    return total


@contextmanager
def _constant_gates(layers: dict[str, HydraLoraLayer], shares: dict[str, list[float]]) -> Iterator[None]:
    try:
        for name, layer in layers.items():
            active_router(layer).steering = partial(_constant, torch.tensor(shares[name]))
        yield
    finally:
        for layer in layers.values():
            active_router(layer).steering = None


def _constant(gates: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return gates.to(logits).expand_as(logits)


def _lora_config(config: HydraLoraConfig, layers: dict[str, HydraLoraLayer], stacked: int) -> LoraConfig:
    """PEFT's config for the same layers; stacking `stacked` heads multiplies ranks, and keeps the scale."""
    growth = math.sqrt(stacked) if config.use_rslora else stacked

    def alpha(of_heads: float) -> Any:
        value = float(of_heads * growth)
        return int(value) if value.is_integer() else value  # PEFT divides it only

    by_list = not isinstance(config.target_modules, str)  # with a regex PEFT ignores layers' indices
    by_index = by_list and config.layers_to_transform is not None
    lora = LoraConfig(
        r=config.r * stacked,
        lora_alpha=alpha(config.lora_alpha),
        use_rslora=config.use_rslora,
        rank_pattern={name: rank * stacked for name, rank in config.rank_pattern.items()},
        alpha_pattern={name: alpha(value) for name, value in config.alpha_pattern.items()},
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,  # type: ignore[arg-type]  # PEFT makes a set of it
        exclude_modules=config.exclude_modules,  # type: ignore[arg-type]
        layers_to_transform=config.layers_to_transform if by_index else None,
        layers_pattern=config.layers_pattern if by_index else None,
        modules_to_save=config.modules_to_save,
        fan_in_fan_out=all(isinstance(layer.get_base_layer(), Conv1D) for layer in layers.values()),
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
    )
    for name in ("target_modules", "exclude_modules"):  # PEFT makes sets of them, whose order in a file is undefined
        if isinstance(getattr(lora, name), set):
            setattr(lora, name, sorted(getattr(lora, name)))
    return lora


def _lora_state(
    model: nn.Module,
    config: HydraLoraConfig,
    layers: dict[str, HydraLoraLayer],
    shares: dict[str, list[float]],
    used_heads: list[int],
) -> dict[str, torch.Tensor]:
    """lora_A (rank, in) and lora_B (out, rank) of every layer, and the modules in modules_to_save."""
    state: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        a, heads = head_matrices(layer)  # (1, r, in) or (N, r, in), (N, out, r)
        weighted = [shares[name][i] * heads[i].float() for i in used_heads]  # (out, r) each
        b = torch.stack(weighted).sum(0) if config.shared_A else torch.cat(weighted, dim=1)  # (out, rank)
        state[f"{PREFIX}{name}.lora_A.weight"] = a[0] if config.shared_A else a[used_heads].flatten(0, 1)
        state[f"{PREFIX}{name}.lora_B.weight"] = (b * scale_factor(layer)).to(heads.dtype)
    if config.modules_to_save:
        adapter = active_adapter(next(iter(layers.values())))
        saved = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
        state |= {key: value for key, value in saved.items() if HydraLoraModel.prefix not in key}
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
