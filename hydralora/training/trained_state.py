"""What a checkpoint keeps of an adapter that PEFT can't load again for training."""

from pathlib import Path

import torch
from torch import nn

from hydralora.models.adapters import virtual_tokens
from hydralora.training.adalora import adalora_of, rank_state, restore_ranks

FILE = "trained.pt"  # beside the adapter that PEFT saves


def save_trained(model: nn.Module, checkpoint: Path) -> None:
    """Keep the trained weights as they are, if PEFT saves others.

    It saves what virtual tokens have become, without the network that makes them, and loads none for training; of
    AdaLoRA it leaves out the vectors that may come back, and the scores by which ranks are cut.
    """
    tuner = adalora_of(model)
    if not tuner and not virtual_tokens(model):
        return
    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    torch.save({"weights": weights, "ranks": rank_state(tuner) if tuner else None}, checkpoint / FILE)


def load_trained(model: nn.Module, checkpoint: Path) -> bool:
    """Load what `save_trained` kept; False if it kept nothing."""
    if not (checkpoint / FILE).exists():
        return False
    state = torch.load(checkpoint / FILE, map_location="cpu", weights_only=True)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state["weights"].items():
            parameters[name].copy_(value)
    if tuner := adalora_of(model):
        restore_ranks(tuner, state["ranks"])
    return True
