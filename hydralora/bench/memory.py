"""Bytes that a forward pass saves for the backward pass."""

from typing import Any

import torch


def kept_tensors(model: Any, ids: torch.Tensor) -> dict[int, torch.Tensor]:
    """What one training forward pass saves for the backward pass, parameters excluded: storage -> a tensor on it."""
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in storages:
            saved[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train()(input_ids=ids, labels=ids, use_cache=False).loss
    del loss
    return saved


def kept_bytes(model: Any, ids: torch.Tensor) -> int:
    """The number of saved bytes, each storage counted once."""
    return sum(tensor.untyped_storage().nbytes() for tensor in kept_tensors(model, ids).values())
