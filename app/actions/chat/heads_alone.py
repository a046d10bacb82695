"""Which head does this? Each head of a run answers alone, beside the router, on one question or several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from hydralora.analysis.heads_alone import HeadsAlone, heads_alone
from hydralora.components.rows import one_of_each
from hydralora.data.examples import Example
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling

from ...services import Services
from ...services.background import Done, in_background
from ...services.cache import ResultKind
from ...services.processes import in_process
from ..adapters import why_no_adapter
from ..reading import Cell

ANSWER_COLUMNS = ["question", "who answers", "mean gate", "KL, nats per token", "answer"]
QUESTIONS = ResultKind[list[tuple[str, Example]]]("one question of each component")
MOST = 12  # questions at once
LINE_END = "⏎"  # shown for a line end within a question
TOKENS = 48
HOW_TO_READ = (
    f"Answers are cut at {TOKENS} tokens. KL measures how far a head alone is from the routed model on the tokens of "
    "the routed answer; 0: no difference. If all heads are near, none of them matters more than another for this "
    "answer."
)


@dataclass(frozen=True)
class AloneView:
    """What the page shows.

    Attributes:
        answers: as `ANSWER_COLUMNS`, the router's first.
        columns, summary: for each question the KL of every head, and the nearest.
    """

    sentence: str
    answers: list[list[Cell]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    summary: list[list[Cell]] = field(default_factory=list)


def as_line(question: str) -> str:
    """A question as one line of the page's field: its own line ends are shown as marks, which `ask` takes back."""
    return LINE_END.join(question.splitlines())


def ask(services: Services, run_id: str | None, questions: str, system: str = "") -> Iterator[AloneView]:
    """Ask each line of `questions` with the router and with every head alone.

    Raises:
        HydraError: no question, too many, the run has no heads, or a question is too long.
    """
    lines = [line.strip().replace(LINE_END, "\n") for line in questions.splitlines() if line.strip()]
    if not lines or len(lines) > MOST:
        count = f"There are {len(lines)} questions" if lines else "There is no question"
        raise HydraError(f"{count}. Write 1 to {MOST}, one per line.")
    if why := why_no_adapter(services, run_id):
        raise HydraError(why)
    assert run_id
    yield AloneView("Loading the model …")
    loaded = services.loaded(run_id)
    first = [{"role": "system", "content": system.strip()}] if system.strip() else []
    done: list[HeadsAlone] = []
    for number, question in enumerate(lines, 1):
        messages = [*first, {"role": "user", "content": question}]
        work = partial(heads_alone, loaded.model, loaded.tokenizer, messages, Sampling(TOKENS), loaded.lock)
        for step in in_background(work):
            if isinstance(step, Done):
                done.append(step.value)
            else:
                yield _view(f"Question {number} of {len(lines)}: {step.done} of {step.total} answers.", lines, done)
    yield _view(f"{_verdict(done)} {HOW_TO_READ}", lines, done)


def examples(services: Services, run_id: str | None) -> Iterator[str | list[str]]:
    """A held-out question of each component, at most `MOST`; before that, sentences on the progress.

    Raises:
        HydraError: the run's rows are gone, or can't be clustered.
    """
    if not run_id:
        raise HydraError("No run is chosen. Train one first.")
    run = services.run(run_id)
    for step in in_background(
        lambda on_progress: services.cache.remember(
            QUESTIONS, run_id, compute=lambda: in_process(one_of_each, run.recipe(), on_progress=on_progress)
        )
    ):
        yield [row.question for _, row in step.value][:MOST] if isinstance(step, Done) else "Finding the components …"


def _view(sentence: str, questions: Sequence[str], done: Sequence[HeadsAlone]) -> AloneView:
    answers: list[list[Cell]] = []
    summary: list[list[Cell]] = []
    count = len(done[0].heads) if done else 0
    for question, result in zip(questions, done, strict=False):
        answers.append([question, "router", "", "", result.text])
        answers += [
            [question, f"head {alone.head + 1} alone", round(alone.gate, 3), round(alone.kl, 4), alone.text]
            for alone in result.heads
        ]
        kls = [round(alone.kl, 4) for alone in result.heads]
        strongest = max(result.heads, key=lambda alone: alone.gate)
        summary.append([question, *kls, f"head {result.closest.head + 1}", f"head {strongest.head + 1}"])
    heads = [f"KL of head {head + 1}" for head in range(count)]
    return AloneView(sentence, answers, ["question", *heads, "nearest", "largest gate"], summary)


def _verdict(done: Sequence[HeadsAlone]) -> str:
    nearest = {result.closest.head for result in done}
    agree = sum(result.closest == max(result.heads, key=lambda alone: alone.gate) for result in done)
    if len(done) == 1:
        alone = done[0].closest
        return f"Nearest to the routed model is head {alone.head + 1}, {alone.kl:.3g} nats per token away."
    named = ", ".join(str(head + 1) for head in sorted(nearest))
    several = (
        f"Over {len(done)} questions the nearest are heads {named}"
        if len(nearest) > 1
        else (f"On all {len(done)} questions head {named} is the nearest")
    )
    return f"{several}; it is the one with the largest gate on {agree}."
