"""LoraHub: each component's LoRA becomes the mixture of all components' that fits a few of its rows best.

In its paper, a task that nobody has trained on gets a mixture; here each component does, so no row needs a router.
"""

import math
from collections import defaultdict

import numpy as np

from hydralora.inference.evaluation import evaluate_rows
from hydralora.runs.state import Stage
from hydralora.training.monitor import Reporter
from hydralora.training.preparation import Prepared
from hydralora.training.stopping import StopRequestedError
from hydralora.tuner.mixtures import ROWS, mix_heads


def mix_components(prepared: Prepared, seed: int, reporter: Reporter) -> bool:
    """Replace each component's trained LoRA; one without training rows stays.

    Returns:
        False when stopped before the end, which leaves the LoRAs as they were trained.
    """
    draws = np.random.default_rng(seed)
    by_head: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(prepared.train):
        by_head[row.head or 0].append(i)
    rows = {
        head: [prepared.train[i] for i in draws.permutation(own)[:ROWS].tolist()]
        for head, own in sorted(by_head.items())
    }
    tried = [row for own in rows.values() for row in own]

    def losses() -> list[float]:
        scores = evaluate_rows(prepared.model, tried, prepared.tokenizer.pad_token_id)
        measured = iter(zip(scores.losses, scores.tokens, strict=True))
        sums = [[next(measured) for _ in own] for own in rows.values()]
        return [
            sum(math.inf if loss is None else loss for loss, _ in own) / sum(tokens for _, tokens in own)
            for own in sums
        ]

    try:
        reporter.stage(Stage.MIXING)
        mix_heads(prepared.model, list(rows), losses, seed, reporter.progress)
    except StopRequestedError:
        return False
    return True
