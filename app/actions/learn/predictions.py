"""Predict, then see: which head leads on a held-out row."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from pydantic import TypeAdapter, ValidationError

from hydralora.analysis.head_use import head_use
from hydralora.data.encoding import encode_rows
from hydralora.data.examples import Example
from hydralora.errors import HydraError

from ...services import Services
from ...services.cache import ResultKind
from ..adapters import adapter_hash
from ..chat.columns import heads_of, leading_head
from ..chat.examples import heldout_rows, in_turns
from .formula import why_not

QUESTIONS = 10
ROWS_GONE = "The held-out rows of this run are gone, so there is nothing to predict. Choose another run."
GATES = ResultKind[list[float]]("gates of a row", keep=128)


@dataclass(frozen=True)
class Guess:
    """A prediction, and the row's mean gates; `head` None says that no head leads."""

    head: int | None
    gates: list[float]

    @property
    def is_right(self) -> bool:
        return self.head == leading_head(self.gates)


@dataclass(frozen=True)
class Quiz:
    """The predictions so far for an adapter of a run; another `round` has other rows."""

    run: str = ""
    adapter: str | None = None
    round: int = 0
    guesses: list[Guess] = field(default_factory=list)


_QUIZ: TypeAdapter[Quiz] = TypeAdapter(Quiz)


class Question(TypedDict):
    """A held-out row."""

    question: str
    expected: str


class Seen(Question):
    """A row whose gates are known: the prediction, the head that leads (None: none of them), the gates."""

    guess: int | None
    lead: int | None
    gates: list[float]


class QuizView(TypedDict):
    """What the page shows: the last row predicted, the next one (None at the end), and the score."""

    heads: int
    names: list[str]
    total: int
    seen: Seen | None
    next: Question | None
    right: list[bool]
    note: str


def quiz_of(services: Services, run_id: str | None, stored: object) -> Quiz:
    """The quiz that the browser keeps, if it is about this adapter; else a new one."""
    known = adapter_hash(services, run_id) if run_id else None
    try:
        quiz = _QUIZ.validate_python(stored or {})
    except ValidationError:  # an older version's
        quiz = Quiz()
    same = quiz.run == run_id and quiz.adapter == known and len(quiz.guesses) <= QUESTIONS
    return quiz if same else Quiz(run_id or "", known)


def stored(quiz: Quiz) -> dict[str, object]:
    """A quiz as the browser keeps it."""
    return asdict(quiz)


def view(services: Services, quiz: Quiz) -> QuizView:
    """What to show of a quiz; `note` says why there is none."""
    note = why_not(services, quiz.run)
    rows = [] if note else _rows(services, quiz)
    heads = heads_of(services, quiz.run if rows else None)
    done = len(quiz.guesses)
    return {
        "heads": heads["heads"],
        "names": heads["names"],
        "total": len(rows),
        "seen": _seen(rows[done - 1], quiz.guesses[-1]) if 0 < done <= len(rows) else None,
        "next": _question(rows[done]) if done < len(rows) else None,
        "right": [guess.is_right for guess in quiz.guesses[: len(rows)]],
        "note": note or ("" if rows else ROWS_GONE),
    }


def predict(services: Services, quiz: Quiz, head: int | None) -> Quiz:
    """The quiz with a prediction for its next row, and that row's gates from the model.

    Raises:
        HydraError: the run has no heads, its rows are gone, or the row can't be read.
    """
    if why := why_not(services, quiz.run):
        raise HydraError(why)
    rows, done = _rows(services, quiz), len(quiz.guesses)
    if not rows:
        raise HydraError(ROWS_GONE)
    if done >= len(rows):
        return quiz
    gates = mean_gates(services, quiz.run, rows[done])
    if head is not None and not 0 <= head < len(gates):
        raise HydraError(f"There is no head {head + 1}. Choose one of {len(gates)}.")
    return Quiz(quiz.run, quiz.adapter, quiz.round, [*quiz.guesses, Guess(head, gates)])


def again(quiz: Quiz) -> Quiz:
    """A new quiz with other rows of the same run."""
    return Quiz(quiz.run, quiz.adapter, quiz.round + 1)


def mean_gates(services: Services, run_id: str, row: Example) -> list[float]:
    """Each head's gate on a row: the mean over the positions that predict its answer, and over the layers.

    Raises:
        HydraError: the model is missing, or the row is too long.
    """

    def compute() -> list[float]:
        loaded = services.loaded(run_id)
        encoded = encode_rows(loaded.tokenizer, [row], services.run(run_id).recipe()).rows
        with loaded.lock:
            use = head_use(loaded.model, encoded, loaded.tokenizer.pad_token_id)
        gates: list[float] = use.mean.mean((0, 1)).tolist()
        return gates

    return services.cache.remember(GATES, run_id, adapter_hash(services, run_id), row.row, compute=compute)


def _rows(services: Services, quiz: Quiz) -> Sequence[Example]:
    """Held-out rows of a round, mixed; the tasks take turns in an order that tells nothing."""
    rows = list(heldout_rows(services, quiz.run, ""))
    order = random.Random(quiz.round)
    order.shuffle(rows)
    chosen = in_turns(rows, QUESTIONS)
    order.shuffle(chosen)
    return chosen


def _question(row: Example) -> Question:
    return {"question": row.question, "expected": row.answer}


def _seen(row: Example, guess: Guess) -> Seen:
    lead = leading_head(guess.gates)
    return {"question": row.question, "expected": row.answer, "guess": guess.head, "lead": lead, "gates": guess.gates}
