"""Vectors of texts from a base model or a sentence-transformers model, to be clustered."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import ConfigError, ModelError, first_line
from hydralora.models.device import pick_device
from hydralora.models.fetching import hub_reachable
from hydralora.models.types import Tokenizer
from hydralora.tuner.structure import model_body

MAX_TOKENS = 256  # of a text; the rest adds little to its topic
BATCH = 16  # texts
SENTENCES = 32  # texts in a batch of a sentence-transformers model


def mean_pooled(
    model: Any, tokenizer: Tokenizer, on_progress: OnProgress = ignore_progress
) -> Callable[[Sequence[str]], np.ndarray]:
    """A function texts -> (texts, hidden size), float32: the mean of the last layer's states over a text's tokens.

    Args:
        model: a causal language model; its active adapter, if any, is used.
        on_progress: called with the texts done, and all texts.
    """
    body = model_body(model)
    device = next(model.parameters()).device

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] or [0] for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # of similar length, so that little is padding
        out = np.zeros((len(ids), model.config.get_text_config().hidden_size), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            out[chosen] = _means(body, [ids[i] for i in chosen], device)
            on_progress(start + len(chosen), len(ids))
        return out

    return encode


def sentence_vectors(name: str, texts: Sequence[str], on_progress: OnProgress = ignore_progress) -> np.ndarray:
    """Embeddings of texts from a sentence-transformers model: (texts, dims), float32, of length 1.

    The model is in memory only during the call; only safetensors weights are loaded, and no remote code is run.

    Args:
        name: a Hub id, or a folder.
        on_progress: called with the texts done, and all texts.

    Raises:
        ConfigError: sentence-transformers is not installed.
        ModelError: the model can't be found or read.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "Features by a sentence model need sentence-transformers. Install it: pip install '.[embeddings]'."
        ) from error
    model = _sentence_model(SentenceTransformer, name)
    parts = []
    for start in range(0, len(texts), SENTENCES):
        some = list(texts[start : start + SENTENCES])
        parts.append(model.encode(some, normalize_embeddings=True, show_progress_bar=False))
        on_progress(start + len(some), len(texts))
    return np.concatenate(parts).astype(np.float32)


def _sentence_model(load: Any, name: str) -> Any:
    here = Path(name).is_dir()
    try:
        return load(
            name,
            device=pick_device(),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            local_files_only=here or not hub_reachable(),
        )
    except Exception as error:  # transformers, the Hub's client and torch raise many kinds
        label = Path(name).name if here else name
        raise ModelError(
            f"{label}: it can't be loaded as a sentence-transformers model. {first_line(error)}"
        ) from error


def _means(body: torch.nn.Module, ids: list[list[int]], device: torch.device) -> np.ndarray:
    width = max(map(len, ids))
    tokens = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    states = body(input_ids=tokens.to(device), attention_mask=mask.to(device), use_cache=False)[0].float()
    weight = mask.to(device)[..., None]
    return ((states * weight).sum(1) / weight.sum(1)).cpu().numpy()
