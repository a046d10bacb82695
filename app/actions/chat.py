"""The Chat tab: tuned and base answers side by side, token by token, with the tuned model's gates."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app import figures
from app.actions.recipes import model_name, recipe_from_form, resolve_model
from app.services import Answer, Services
from hydralora.data.examples import Example
from hydralora.errors import HydraError
from hydralora.generation import Sampling, Token, gated_modules, generate
from hydralora.preparation import read_split
from hydralora.serving import Loaded

UPDATE_SECONDS = 0.12  # between updates of the page
PROMPTS = 12
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class ChatView:
    """What the page shows. `strip` is the token strip's value; the figures are "" where there are no gates."""

    answer_id: str
    tuned: Messages
    base: Messages
    strip: dict[str, Any]
    bars: str
    heatmap: str
    status: str


def prompts(services: Services, dataset_id: str) -> list[list[str]]:
    """Held-out rows to try, a few of each task: [prompt, expected answer]."""
    recipe = recipe_from_form(services, dataset_id, "", {})  # its split is the one a run makes
    rows = services.remember(("split", dataset_id), lambda: read_split(recipe)).heldout
    by_task: dict[str | None, list[Example]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    each = max(1, PROMPTS // len(by_task))
    chosen = [row for task in sorted(by_task, key=str) for row in by_task[task][:each]]
    return [[row.question, row.answer] for row in chosen[:PROMPTS]]


def titles(services: Services, run_id: str | None, model: str) -> tuple[str, str]:
    """What stands over the tuned and the base column."""
    run = services.run(run_id) if run_id else None
    base = f"Base model: {model_name(run.recipe().model if run else resolve_model(services, model))}, no adapter"
    if not run or not run.has_adapter:
        return "Tuned model: none yet. Train one, or choose a run above.", base
    return f"Tuned model: run {run.id}, adapter {(run.state()['adapter_hash'] or '')[:8]}", base


def stream(
    services: Services,
    run_id: str | None,
    model: str,
    tuned: Messages,
    base: Messages,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
) -> Iterator[ChatView]:
    """Answer `prompt` in both columns, each with its own history; the base alone where there is no adapter.

    Raises:
        HydraError: the prompt is empty or too long, or the model can't be loaded.
    """
    if not prompt.strip():
        raise HydraError("The prompt is empty. Type something, or choose a held-out row.")
    sampling = Sampling(int(max_new_tokens), temperature, seed=0)
    question = {"role": "user", "content": prompt}
    tuned, base = [*_answered(tuned), question], [*_answered(base), question]
    yield ChatView("", tuned, base, {"answer": "", "tokens": [], "heads": 0}, "", "", "Loading the model …")
    loaded = services.loaded(run_id, resolve_model(services, model))
    answer_id, answer = services.new_answer(gated_modules(loaded.model))
    columns = _Columns(services, loaded, tuned if loaded.adapter_hash else tuned[:-1], base, sampling)
    began = shown = time.monotonic()
    strip: list[list[Any]] = []  # grows by a token at a time, so that long answers don't slow down
    count = 0
    for token in columns.run():
        if token:
            answer.tokens.append(token)
            strip.append(_strip_token(token))
        count += 1
        if time.monotonic() - shown >= UPDATE_SECONDS:
            shown = time.monotonic()
            speed = f"{count / (shown - began):.1f} tokens/s in both columns together"
            yield _view(answer_id, answer, columns, strip, f"Answering: {speed}")
    yield _view(answer_id, answer, columns, strip, f"Done: {count} tokens in {time.monotonic() - began:.1f} s.")


def pick(services: Services, answer_id: str, index: int) -> tuple[str, str, str]:
    """Freeze bars and heatmap on a token (-1: let them follow the newest); returns both and a sentence."""
    answer = services.answer(answer_id)
    answer.frozen = index if 0 <= index < len(answer.tokens) else None
    bars, heatmap = _gate_figures(answer)
    if answer.frozen is None:
        return bars, heatmap, "The newest token is shown. Select a token to look at its gates."
    token = answer.tokens[answer.frozen]
    gates = mean_over_layers(token)
    listed = ", ".join(f"head {i + 1} {gate:.2f}" for i, gate in enumerate(gates))
    return bars, heatmap, f"Token {answer.frozen + 1} of {len(answer.tokens)}, {token.text!r}: {listed}."


def mean_over_layers(token: Token) -> list[float]:
    """Mean gate of each head over the adapted modules; empty where the model has none."""
    return [sum(column) / len(column) for column in zip(*token.gates, strict=True)]


def _answered(messages: Messages) -> Messages:
    """A conversation without a last question that got no answer, as after an error."""
    return messages[:-1] if messages and messages[-1]["role"] == "user" else list(messages)


class _Columns:
    """Both answers, generated in turns on one model."""

    def __init__(self, services: Services, loaded: Loaded, tuned: Messages, base: Messages, sampling: Sampling) -> None:
        self.tuned, self.base = tuned, base
        self.has_adapter = loaded.adapter_hash is not None
        self._services, self._loaded, self._sampling = services, loaded, sampling

    def run(self) -> Iterator[Token | None]:
        """Every new token of the tuned answer; None for one of the base answer."""
        streams = [(self.base, self._generate(self.base, adapter=False), False)]
        if self.has_adapter:
            streams.insert(0, (self.tuned, self._generate(self.tuned, adapter=True), True))
        for messages, _, _ in streams:
            messages.append({"role": "assistant", "content": ""})
        while streams:
            for item in list(streams):
                messages, tokens, adapted = item
                token = next(tokens, None)
                if token is None:
                    streams.remove(item)
                    continue
                messages[-1] = {"role": "assistant", "content": messages[-1]["content"] + token.text}
                yield token if adapted else None

    def _generate(self, messages: Messages, adapter: bool) -> Iterator[Token]:
        return generate(
            self._loaded.model,
            self._loaded.tokenizer,
            list(messages),
            self._sampling,
            adapter=adapter,
            lock=self._services.model_lock,
        )


def _view(answer_id: str, answer: Answer, columns: _Columns, strip: list[list[Any]], status: str) -> ChatView:
    bars, heatmap = _gate_figures(answer)
    heads = len(answer.tokens[0].gates[0]) if answer.tokens and answer.tokens[0].gates else 0
    value = {"answer": answer_id, "tokens": list(strip), "heads": heads}
    return ChatView(answer_id, list(columns.tuned), list(columns.base), value, bars, heatmap, status)


def _strip_token(token: Token) -> list[Any]:
    """[text, strongest head or None, its lead over the second]."""
    gates = mean_over_layers(token)
    if not gates:
        return [token.text, None, 0]
    first, *rest = sorted(gates, reverse=True)
    return [token.text, gates.index(first), round(first - rest[0], 3) if rest else 1]


def _gate_figures(answer: Answer) -> tuple[str, str]:
    if not answer.tokens or not answer.tokens[-1].gates:
        return "", ""
    token = answer.tokens[answer.frozen if answer.frozen is not None else -1]
    return figures.gate_bars(mean_over_layers(token)), figures.gate_heatmap(answer.modules, token.gates)
