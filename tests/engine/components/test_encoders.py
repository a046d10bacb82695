"""Texts as a base model sees them: one vector a text, whatever stands beside it in a batch."""

from typing import Any

import numpy as np
import torch

from hydralora.components.encoders import BATCH, MAX_TOKENS, mean_pooled
from tests.tiny_model import tiny_llama

TEXTS = ["a", "", "two words", "x" * 3 * MAX_TOKENS, *(f"text {i} " * i for i in range(BATCH))]


def test_a_vector_is_the_mean_of_the_texts_states(tokenizer: Any) -> None:
    model = tiny_llama()
    seen: list[tuple[int, int]] = []
    vectors = mean_pooled(model, tokenizer, lambda done, total: seen.append((done, total)))(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), model.config.hidden_size), np.float32)
    assert seen == [(BATCH, len(TEXTS)), (len(TEXTS), len(TEXTS))]
    for i in (0, 2, 3, 10):
        ids = torch.tensor([tokenizer(TEXTS[i], truncation=True, max_length=MAX_TOKENS)["input_ids"]])
        with torch.no_grad():
            alone = model.model(ids).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vectors[i], alone, atol=1e-4)
    assert np.isfinite(vectors).all()
