"""Which tokens a base model has never learnt, by the rows of its embedding and output layer."""

from collections.abc import Collection
from typing import Any

from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import load_config

NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")  # (vocabulary, width)
OUTPUTS = ("lm_head.weight", "embed_out.weight")
SAMPLE = 2048  # rows that others are compared with
NEAR = 0.1  # of the usual distance from the mean; a row added later starts at the mean


def untrained_tokens(files: BaseModelFiles, ids: Collection[int]) -> set[int]:
    """The tokens whose row is zero, equals another token's, or lies at the mean, as rows do that were only added.

    A model's rows are compared where it predicts: in the output layer, or the embedding that it shares with it.
    """
    from safetensors import safe_open

    tied = getattr(load_config(files).get_text_config(), "tie_word_embeddings", False)
    for path in sorted(files.folder.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            for key in sorted(weights.keys(), key=lambda key: not key.endswith(OUTPUTS)):
                if key.endswith(OUTPUTS) or (tied and key.endswith(NAMES)):
                    return _untrained(weights.get_slice(key), ids)
    return set()


def _untrained(rows: Any, ids: Collection[int]) -> set[int]:
    import torch

    count = rows.get_shape()[0]
    known = [token for token in ids if token < count]
    sample = rows[:: max(1, count // SAMPLE)].float()  # (sample, width)
    mean = sample.mean(0)
    usual = (sample - mean).norm(dim=1).median()
    untrained = set()
    for token in known:
        row = rows[token : token + 1].float()[0]
        neighbours = rows[max(0, token - 8) : token + 9].float()  # added tokens stand side by side
        twins = int((neighbours == row).all(1).sum()) > 1
        if twins or not bool(torch.any(row)) or float((row - mean).norm()) < NEAR * float(usual):
            untrained.add(token)
    return untrained
