"""Answers as the page shows them: in columns, as tokens with their gates."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from hydralora import figures
from hydralora.data.examples import Message
from hydralora.errors import HydraError
from hydralora.inference.generation import Token

from ...services import Services
from ...services.answers import Answer, StripToken

COLUMNS = {"run": "This run", "steered": "This run, steered", "base": "Base model", "other": "Another run"}


class Strip(TypedDict):
    """The token strip's value (widgets/tokens.js)."""

    answer: str
    tokens: list[StripToken]
    heads: int


@dataclass(frozen=True)
class ColumnView:
    """What the page shows of a column; `strip` is the token strip's value."""

    title: str
    messages: list[Message]
    strip: Strip
    answer_id: str


@dataclass(frozen=True)
class ChatView:
    """What the page shows; gates None leaves the current figures."""

    columns: dict[str, ColumnView]
    gates: "GateFigures | None"
    status: str


@dataclass(frozen=True)
class GateFigures:
    """A token's gates as bars, and by layer; the answer's mean so far, by layer. "" for a figure without gates."""

    bars: str = ""
    heatmap: str = ""
    load: str = ""


@dataclass(frozen=True)
class TokenView:
    """The selected token: its gates, a sentence, and the alternatives with their probabilities."""

    gates: GateFigures
    sentence: str
    alternatives: list[list[str]] = field(default_factory=list)


def pick(services: Services, answer_id: str, place: int, beside: Mapping[str, str] | None = None) -> TokenView:
    """Freeze bars and heatmap on a token, counted from the start of the prompt (-1: follow the newest).

    Args:
        beside: the answers of the other columns, whose selected tokens are released.
    """
    answer = services.answers.get(answer_id)
    for _, other in kept_answers(services, beside or {}).values():
        other.frozen = None
    tokens = [*answer.prompt, *answer.tokens]
    answer.frozen = place if 0 <= place < len(tokens) else None
    gates = _gate_figures(answer)
    if answer.frozen is None:
        return TokenView(gates, "The newest token is shown. Select a token to see its gates.")
    token, read = tokens[answer.frozen], answer.frozen < len(answer.prompt)
    number = answer.frozen + 1 if read else answer.frozen + 1 - len(answer.prompt)
    of = f"{len(answer.prompt)} of the question" if read else str(len(answer.tokens))
    listed = ", ".join(f"head {i + 1} {gate:.2f}" for i, gate in enumerate(mean_over_layers(token)))
    others = [[repr(alternative.text)[1:-1], f"{alternative.probability:.1%}"] for alternative in token.alternatives]
    sentence = f"{answer.name}, token {number} of {of}, {token.text!r}"
    return TokenView(gates, sentence + (f": {listed}." if listed else "."), others)


def watched(services: Services, answer_ids: Mapping[str, str]) -> str | None:
    """The answer whose token is selected, else the first."""
    return _watched(kept_answers(services, answer_ids))[0] or None


def mean_over_layers(token: Token) -> list[float]:
    """Mean gate of each head over the adapted modules; empty where the model has none."""
    return [sum(column) / len(column) for column in zip(*token.gates, strict=True)]


def kept_answers(services: Services, answer_ids: Mapping[str, str]) -> dict[str, tuple[str, Answer]]:
    """The answers that are still kept, with their ids, by column."""
    answers = {}
    for key in COLUMNS:
        if answer_id := answer_ids.get(key):
            with suppress(HydraError):
                answers[key] = answer_id, services.answers.get(answer_id)
    return answers


def view(answers: Mapping[str, tuple[str, Answer]], status: str, draw: bool = True) -> ChatView:
    """Answers with their ids, by column; with figures only if `draw` is set."""
    _, plain = answers.get("run", ("", None))
    columns = {key: _column(*pair, plain if key == "steered" else None) for key, pair in answers.items()}
    if not draw:
        return ChatView(columns, None, status)
    _, answer = _watched(answers)
    return ChatView(columns, _gate_figures(answer) if answer else GateFigures(), status)


def _watched(answers: Mapping[str, tuple[str, Answer]]) -> tuple[str, Answer | None]:
    """The answer whose gates are drawn: the one whose token is selected, else the first that has gates."""
    pairs = list(answers.values())
    selected = [pair for pair in pairs if pair[1].frozen is not None]
    gated = [pair for pair in pairs if pair[1].modules]
    return next(iter(selected or gated or pairs), ("", None))


def _column(answer_id: str, answer: Answer, beside: Answer | None) -> ColumnView:
    text = "".join(token.text for token in answer.tokens)
    turns = [message for message in answer.messages if message["role"] != "system"]
    conversation = [*turns, {"role": "assistant", "content": text}]
    return ColumnView(answer.title, conversation, _strip(answer_id, answer, beside), answer_id)


def _strip(answer_id: str, answer: Answer, beside: Answer | None = None) -> Strip:
    """The value of the token strip; tokens that differ from those of the answer beside it are marked."""
    everything = [*answer.prompt, *answer.tokens]
    heads = len(everything[0].gates[0]) if everything and everything[0].gates else 0
    read = len(answer.prompt)
    others = beside.tokens if beside else []
    listed = answer.strip  # grows by a token at a time, so that long answers don't slow down
    for place in range(len(listed), len(everything)):
        token, index = everything[place], place - read
        unlike = index >= 0 and beside is not None and (index >= len(others) or others[index].id != token.id)
        listed.append([*_strip_token(token), int(place < read), int(unlike)])
    return {"answer": answer_id, "tokens": list(listed), "heads": heads}


def _strip_token(token: Token) -> StripToken:
    """[text, strongest head or None, its lead over the second]."""
    gates = mean_over_layers(token)
    if not gates:
        return [token.text, None, 0]
    first, *rest = sorted(gates, reverse=True)
    return [token.text, gates.index(first), round(first - rest[0], 3) if rest else 1]


def _gate_figures(answer: Answer) -> GateFigures:
    tokens = [*answer.prompt, *answer.tokens]
    if not tokens or not tokens[-1].gates:
        return GateFigures()
    token = tokens[answer.frozen if answer.frozen is not None else -1]
    sums, count = answer.load
    new = answer.tokens[count:]  # a click may read it while the answer grows, so it is replaced at once
    for new_token in new:
        sums = sums + np.array(new_token.gates)
    answer.load = sums, count = sums, count + len(new)
    load = ""
    if count:
        mean = (sums / count).tolist()
        load = figures.gate_heatmap(answer.modules, mean, f"Mean gates of the answer: {answer.name}")
    return GateFigures(
        figures.gate_bars(mean_over_layers(token), answer.name),
        figures.gate_heatmap(answer.modules, token.gates, f"Gates of the token: {answer.name}"),
        load,
    )
