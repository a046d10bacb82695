"""Sample answers to held-out prompts before, during and after training, which show more than a loss."""

import random
from collections.abc import Sequence
from typing import Any

from hydralora.data.encoding import Encoded
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.inference.generation import answer_batch, room_for
from hydralora.models.adapters import virtual_tokens
from hydralora.models.types import Tokenizer
from hydralora.runs.scores import SampleAnswer

LONGEST = 32  # tokens of an answer


def choose_samples(rows: Sequence[Encoded], components: Sequence[int], count: int, seed: int) -> list[Encoded]:
    """Up to `count` rows with a question, at random, of as many components as there are."""
    order = [i for i, row in enumerate(rows) if row.example.prompt and row.is_whole]
    random.Random(seed).shuffle(order)
    turns: dict[int, int] = {}
    turn = {}
    for i in order:
        turn[i] = turns[components[i]] = turns.get(components[i], -1) + 1
    return [rows[i] for i in sorted(order, key=lambda i: (turn[i], components[i]))[:count]]


def answer_samples(
    model: Any, tokenizer: Tokenizer, rows: Sequence[Encoded], on_progress: OnProgress = ignore_progress
) -> list[SampleAnswer]:
    """Greedy answers to the last turn of each conversation, cut at `LONGEST` tokens.

    `on_progress` is called with the tokens of each answer so far, and the most there may be.
    """
    if not rows:
        return []
    prompts = [row.input_ids[: row.answer_start] for row in rows]
    room = room_for(model.config, max(map(len, prompts)) + virtual_tokens(model))
    answers = answer_batch(model, tokenizer, prompts, min(LONGEST, room), on_progress)
    return [
        SampleAnswer(prompt=row.example.prompt[-1]["content"], expected=row.example.answer, answer=answer)
        for row, answer in zip(rows, answers, strict=True)
    ]
