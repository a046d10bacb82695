"""Answers saved to files, and opened from them."""

from pathlib import Path

from hydralora import figures
from hydralora.inference.generation import Alternative, Sampling, Token
from hydralora.inference.traces import Trace, TraceToken, load_trace, make_trace, save_trace
from hydralora.runs.run import SHIPPED_ID

from ...services import Services
from ...services.answers import Answer
from ..recipes import model_name
from .answers import COLUMNS, Turn, Turns, kept_answers


def save(services: Services, turns: Turns) -> tuple[str, str] | None:
    """Write the last turn for download: its first answer as a trace, all of them as a page that replays them.

    Returns:
        The two paths; None if there is no answer, or one that has not ended.
    """
    answers = kept_answers(services, turns[-1].answers) if turns else {}
    written = {key: (answer_id, answer) for key, (answer_id, answer) in answers.items() if answer.tokens}
    if not written or not all(answer.has_ended for _, answer in answers.values()):
        return None
    first_id, first = next(iter(written.values()))
    trace, page = services.download("answer.json", first_id), services.download("answer.html", first_id)
    save_trace(as_trace(first), trace)
    traces = [(COLUMNS[key], as_trace(answer)) for key, (_, answer) in written.items()]
    figures.write_replay(page, [(name, trace.whose, trace.model_dump_json()) for name, trace in traces])
    return str(trace), str(page)


def replay(services: Services, file: Path) -> Turn:
    """A saved trace as a turn of a conversation; no model is needed.

    Raises:
        ConfigError: the file is not a trace.
    """
    trace = load_trace(file)
    question = next((message.content for message in reversed(trace.messages) if message.role == "user"), "")
    return Turn(question, answers={"run": services.answers.keep(_replayed(trace))})


def shipped_turn(services: Services, steered: bool = False) -> Turn:
    """The first question of the shipped run with its saved answers: tuned, base, and if `steered` head 4 alone.

    Raises:
        HydraError: the run is not in this workspace, or a file is damaged.
    """
    folder = services.run(SHIPPED_ID).answers
    files = {"run": "1-router", "base": "1-base"} | ({"steered": "1-head-4"} if steered else {})
    traces = {key: load_trace(folder / f"{name}.json") for key, name in files.items()}
    answers = {key: services.answers.keep(_replayed(trace)) for key, trace in traces.items()}
    return Turn(traces["run"].messages[-1].content, answers=answers)


def _replayed(trace: Trace) -> Answer:
    answer = Answer(
        f"Replayed from a file: {model_name(trace.base)}, {trace.whose}",
        trace.modules,
        messages=[message.model_dump() for message in trace.messages],
        source=trace.source,
        sampling=Sampling(**trace.sampling.model_dump()),
        prompt=[_as_token(token) for token in trace.prompt],
        tokens=[_as_token(token) for token in trace.tokens],
    )
    answer.end("Replayed from a file, without a model.")
    return answer


def still_kept(services: Services, turns: Turns) -> list[Turn]:
    """The turns of a reloaded page of which an answer is still kept."""
    return [turn for turn in turns if kept_answers(services, turn.answers)]


def as_trace(answer: Answer) -> Trace:
    """An answer as it is saved."""
    return make_trace(answer.tokens, answer.prompt, answer.modules, answer.messages, answer.sampling, answer.source)


def _as_token(token: TraceToken) -> Token:
    others = tuple(
        Alternative(alternative.id, alternative.text, alternative.probability) for alternative in token.alternatives
    )
    return Token(token.id, token.text, token.gates, others)
