"""Tokens per second of generation, one conversation at a time."""

import time
from collections.abc import Callable
from typing import Any

import torch

from hydralora.inference.generation import Sampling, generate
from hydralora.models.types import Tokenizer

PROMPT = "Write a long story about a river, a lighthouse and the people who live beside them."


def streamed(model: Any, tokenizer: Tokenizer, tokens: int) -> Callable[[int], float]:
    """Our generation with gates recorded for every token: tokens/s, prompt included."""
    messages = [{"role": "user", "content": PROMPT}]

    def turn(number: int) -> float:
        start = time.perf_counter()
        count = sum(1 for _ in generate(model, tokenizer, messages, Sampling(max_new_tokens=tokens)))
        return count / (time.perf_counter() - start)

    return turn


def generated(model: Any, tokenizer: Tokenizer, tokens: int) -> Callable[[int], float]:
    """transformers' own greedy `generate` of the same prompt: tokens/s, prompt included."""
    messages = [{"role": "user", "content": PROMPT}]
    inputs: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    width = inputs["input_ids"].shape[1]

    @torch.inference_mode()
    def turn(number: int) -> float:
        start = time.perf_counter()
        out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return (out.shape[1] - width) / (time.perf_counter() - start)

    return turn
