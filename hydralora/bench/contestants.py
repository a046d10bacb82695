"""The models that compete: one base model's frozen weights, shared by all, with different adapters."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hydralora.bench.loop import loop_over_heads
from hydralora.models.catalogue import DEFAULT_MODEL, find_model
from hydralora.models.loading import load_base, load_tokenizer
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.model import hydra_layers

R = 8
TARGETS = ["gate_proj", "up_proj", "down_proj"]
DROPOUT = 0.05  # in training steps, as published; other contests have none
HEAD_STD = 0.02  # of heads that have an effect


class Field:
    """A base model, and contestants that share its weights."""

    def __init__(self, blocks: int | None = None, device: str = "cpu") -> None:
        files = find_model(DEFAULT_MODEL)
        self.tokenizer = load_tokenizer(files)
        self.device = device
        self.base = load_base(files, device).requires_grad_(False)
        if blocks:
            self.base.model.layers = self.base.model.layers[:blocks]
            self.base.config.num_hidden_layers = blocks

    def bare(self) -> Any:
        """The base model in new modules that share its weights."""
        return copy.deepcopy(self.base, {id(weight): weight for weight in self.base.parameters()})

    def ours(self, num_heads: int, effective: bool = False, lora_dropout: float = 0.0) -> Any:
        """This package's HydraLoRA; with heads that have an effect, or zero heads."""
        torch.manual_seed(0)
        config = HydraLoraConfig(
            r=R,
            num_heads=num_heads,
            lora_alpha=2 * R,
            lora_dropout=lora_dropout,
            target_modules=TARGETS,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(self.bare(), config)
        if effective:
            for layer in hydra_layers(model).values():
                nn.init.normal_(layer.hydra_B["default"], std=HEAD_STD)
        return model

    def loop(self, num_heads: int, effective: bool = False, lora_dropout: float = 0.0) -> Any:
        """The published formulation, with the weights of `ours`."""
        return loop_over_heads(self.ours(num_heads, effective, lora_dropout))

    def lora(self, lora_dropout: float = 0.0) -> Any:
        """PEFT's LoRA of the same rank on the same layers."""
        torch.manual_seed(0)
        config = LoraConfig(
            r=R, lora_alpha=2 * R, lora_dropout=lora_dropout, target_modules=TARGETS, task_type="CAUSAL_LM"
        )
        return get_peft_model(self.bare(), config)

    def ids(self, batch: int, tokens: int) -> torch.Tensor:
        """Token ids (batch, tokens), drawn at random."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, self.base.config.vocab_size, (batch, tokens), generator=generator).to(self.device)


def training_step(model: Any, ids: torch.Tensor) -> Callable[[int], None]:
    """Forward, loss on every token, backward and AdamW, as one call."""
    learnt = [weight for weight in model.train().parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-4, fused=True)

    def step(number: int) -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(ids)

    return step


def floor_step(model: Any, ids: torch.Tensor) -> Callable[[int], None]:
    """The lower bound for any adapter: the frozen base's forward pass, and the gradient to its inputs."""
    embed = model.train().get_input_embeddings()

    def step(number: int) -> None:
        inputs = embed(ids).requires_grad_()
        model(inputs_embeds=inputs, labels=ids, use_cache=False).loss.backward()
        _wait(ids)

    return step


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


@torch.no_grad()
def agreement(field: Field, ids: torch.Tensor) -> dict[str, float]:
    """Largest differences between contestants with equal weights, as shares of the largest logit."""
    base = field.bare()(ids).logits
    out = {"ours_zero_heads_vs_base": _gap(field.ours(3)(ids).logits, base)}
    for num_heads in (3, 8):
        ours = field.ours(num_heads, effective=True).eval()
        out[f"ours_vs_loop_n{num_heads}"] = _gap(ours(ids).logits, field.loop(num_heads, effective=True)(ids).logits)
    single, lora = field.ours(1, effective=True).eval(), field.lora().eval()
    for name, layer in hydra_layers(single).items():
        twin = lora.get_base_model().get_submodule(name)
        twin.lora_A["default"].weight.copy_(layer.hydra_A["default"].get_parameter("weight"))
        twin.lora_B["default"].weight.copy_(layer.hydra_B["default"][0].T)
    return out | {"ours_vs_lora_n1": _gap(single(ids).logits, lora(ids).logits)}


def _gap(ours: torch.Tensor, other: torch.Tensor) -> float:
    return float((ours - other).abs().max() / other.abs().max())
