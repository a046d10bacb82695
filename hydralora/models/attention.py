"""Attention over rows that are padded on the right: no token sees what comes after it, so padding needs no mask.

transformers looks at each batch's mask whether it can be left out, and waits for the device to know.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_PADDED_RIGHT = ContextVar("padded right", default=False)


@contextmanager
def padded_right() -> Iterator[None]:
    """While the rows of every pass are padded on the right, if at all, and their outputs there are not used."""
    before = _PADDED_RIGHT.set(True)
    try:
        yield
    finally:
        _PADDED_RIGHT.reset(before)


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **rest: Any,
) -> torch.Tensor | None:
    """As transformers' own mask for "sdpa", but where it would be causal and no more, there is none: None."""
    if allow_is_causal_skip and _PADDED_RIGHT.get():
        if q_length == kv_length and q_offset == 0 and (local_size is None or kv_length < local_size):
            return None
        allow_is_causal_skip = False
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        **rest,
    )


AttentionMaskInterface.register("sdpa", _mask)
