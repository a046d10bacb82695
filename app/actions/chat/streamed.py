"""Answers as they are sent to the page: each token once, with its gates by layer and head."""

import json
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np

from hydralora.inference.generation import Token
from hydralora.tuner.model import block_index

from ...services.answers import Answer

UPDATE_BYTES = 10_000  # of one update; a token of the largest grid takes less
MOST_ROWS, MOST_CELLS = 64, 1500  # of a token's grid; of a deeper model, neighbouring layers share a row
UNIT = 1000  # gates are sent as whole numbers of thousandths


class TokenValue(TypedDict, total=False):
    """A token: its text, its gates by head (mean over the layers), by layer and head, and the likeliest alternatives.

    Gates are in thousandths, (N,) and (layers * N,); without an adapter there are none.
    """

    text: str
    gates: list[int]
    grid: list[int]
    others: list[tuple[str, int]]


class AnswerUpdate(TypedDict):
    """New tokens of an answer.

    Attributes:
        first: the place of the first of them.
        prompt: the number of tokens of the prompt, 0 until they are read.
        layers: the layers of the grid's rows, as text; heads: N.
    """

    first: int
    tokens: list[TokenValue]
    prompt: int
    layers: list[str]
    heads: int
    ended: bool
    note: str
    seconds: float


def updates(answer: Answer, first: int) -> Iterator[AnswerUpdate]:
    """What is known of an answer from its token `first` on, in updates of at most UPDATE_BYTES."""
    ended = answer.has_ended  # read before the tokens: after an end there are no more
    groups = _groups(answer)
    tokens = list(answer.tokens[first:])
    while True:
        values = _fitting([_value(token, groups) for token in tokens])
        tokens = tokens[len(values) :]
        yield _update(answer, first, values, groups, ended and not tokens)
        first += len(values)
        if not tokens:
            return


def prompt_tokens(answer: Answer) -> AnswerUpdate:
    """The tokens of an answer's prompt, with the gates with which they were read."""
    groups = _groups(answer)
    return _update(answer, 0, [_value(token, groups) for token in answer.prompt], groups, True)


def mean_gates(token: Token) -> list[float]:
    """Mean gate of each head over the adapted modules; empty where the model has none."""
    return [sum(column) / len(column) for column in zip(*token.gates, strict=True)]


def _update(
    answer: Answer, first: int, values: list[TokenValue], groups: dict[str, list[int]], ended: bool
) -> AnswerUpdate:
    return {
        "first": first,
        "tokens": values,
        "prompt": len(answer.prompt),
        "layers": list(groups),
        "heads": _heads(answer),
        "ended": ended,
        "note": answer.note,
        "seconds": round(answer.seconds, 2),
    }


def _fitting(values: list[TokenValue]) -> list[TokenValue]:
    """The first of these that fit into an update, at least one."""
    size = 0
    for count, value in enumerate(values):
        size += len(json.dumps(value, separators=(",", ":")))
        if size > UPDATE_BYTES and count:
            return values[:count]
    return values


def _heads(answer: Answer) -> int:
    return next((len(token.gates[0]) for token in (*answer.prompt[:1], *answer.tokens[:1]) if token.gates), 0)


def _groups(answer: Answer) -> dict[str, list[int]]:
    """The places of the modules of each row of the grid: of a layer, or of neighbouring ones."""
    blocks: dict[int, list[int]] = {}
    for place, name in enumerate(answer.modules):
        blocks.setdefault(block_index(name) or 0, []).append(place)
    together = max(1, -(-len(blocks) // MOST_ROWS), -(-len(blocks) * _heads(answer) // MOST_CELLS))
    ordered = sorted(blocks)
    rows = [ordered[i : i + together] for i in range(0, len(ordered), together)]
    return {_named(row): [place for block in row for place in blocks[block]] for row in rows}


def _named(blocks: Sequence[int]) -> str:
    return str(blocks[0]) if len(blocks) == 1 else f"{blocks[0]}-{blocks[-1]}"


def _value(token: Token, groups: dict[str, list[int]]) -> TokenValue:
    value: TokenValue = {"text": token.text}
    if token.gates:
        gates = np.array(token.gates)  # (modules, N)
        value["gates"] = _thousandths(gates.mean(0))
        value["grid"] = _thousandths(np.concatenate([gates[places].mean(0) for places in groups.values()]))
    if token.alternatives:
        value["others"] = [(other.text, round(other.probability * UNIT)) for other in token.alternatives]
    return value


def _thousandths(values: np.ndarray) -> list[int]:
    return [round(float(value) * UNIT) for value in values]
