"""The parts of a base model: its body, its encoder, and its input."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from hydralora.tuner.layer import HydraLoraLayer

IGNORED = -100  # transformers' label of a token that is not learnt


def model_body(model: Any) -> nn.Module:
    """The module that every forward pass calls exactly once; PEFT bypasses the outer ones by calling their `forward`.

    It is the innermost module with the input embedding and with adapted layers: OPT calls the decoder inside its base
    model directly, BERT keeps its embeddings in a module of their own.
    """
    outer: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    embedding = outer.get_input_embeddings() if hasattr(outer, "get_input_embeddings") else None
    holders = [
        module
        for module in outer.modules()
        if module is not embedding and any(part is embedding for part in module.modules())
    ]  # the outermost first
    last = outer.get_output_embeddings() if holders and hasattr(outer, "get_output_embeddings") else None
    body = next((module for module in reversed(holders) if _is_adapted(module, last)), (holders or [outer])[-1])
    return model if body is outer else body


def _is_adapted(module: nn.Module, output_embedding: object) -> bool:
    return any(isinstance(part, HydraLoraLayer) and part is not output_embedding for part in module.modules())


def encoder_of(model: Any) -> nn.Module | None:
    """The encoder of an encoder-decoder; None if there is no such part."""
    outer: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if not getattr(getattr(outer, "config", None), "is_encoder_decoder", False):
        return None
    encoder: nn.Module = outer.get_encoder()
    return encoder


def token_shape(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Size | None:
    """(batch, tokens) of the input of a model's body; some architectures flatten it before a linear layer."""
    ids = kwargs.get("input_ids", args[0] if args else None)
    inputs = kwargs.get("inputs_embeds") if ids is None else ids
    return None if inputs is None else inputs.shape[:2]
