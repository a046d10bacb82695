"""Answers saved to files, and opened from them."""

from collections.abc import Mapping
from pathlib import Path

from hydralora import figures
from hydralora.inference.generation import Alternative, Sampling, Token
from hydralora.inference.traces import Trace, TraceToken, load_trace, make_trace, save_trace

from ...services import Services
from ...services.answers import Answer
from ..recipes import model_name
from .answers import ChatView, kept_answers, view


def save(services: Services, answer_id: str) -> str:
    """Write an answer with its gates to a file for download; returns its path.

    Raises:
        HydraError: the answer is no longer kept.
    """
    answer = services.answers.get(answer_id)
    path = services.download("answer.json", answer_id)
    save_trace(_trace(answer), path)
    return str(path)


def save_page(services: Services, answer_id: str) -> str:
    """Write a page that replays an answer, for download; returns its path.

    Raises:
        HydraError: the answer is no longer kept.
    """
    path = services.download("answer.html", answer_id)
    trace = _trace(services.answers.get(answer_id))
    figures.write_replay(path, trace.model_dump_json(), trace.whose)
    return str(path)


def replay(services: Services, file: Path) -> ChatView:
    """A saved trace, as the page shows an answer; no model is needed.

    Raises:
        ConfigError: the file is not a trace.
    """
    trace = load_trace(file)
    answer = Answer(
        f"Replayed from a file: {model_name(trace.base)}, {trace.whose}",
        "Replayed",
        trace.modules,
        messages=[message.model_dump() for message in trace.messages],
        source=trace.source,
        sampling=Sampling(**trace.sampling.model_dump()),
        prompt=[_as_token(token) for token in trace.prompt],
        tokens=[_as_token(token) for token in trace.tokens],
    )
    answers = {"run": (services.answers.keep(answer), answer)}
    return view(answers, "Replayed from a file, without a model.")


def reopen(services: Services, answer_ids: Mapping[str, str]) -> ChatView | None:
    """The answers of a reloaded page, by column; None if none of them is kept any more."""
    answers = kept_answers(services, answer_ids)
    return view(answers, "These answers are from before the page was reloaded.") if answers else None


def _trace(answer: Answer) -> Trace:
    return make_trace(answer.tokens, answer.prompt, answer.modules, answer.messages, answer.sampling, answer.source)


def _as_token(token: TraceToken) -> Token:
    others = tuple(
        Alternative(alternative.id, alternative.text, alternative.probability) for alternative in token.alternatives
    )
    return Token(token.id, token.text, token.gates, others)
