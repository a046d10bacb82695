"""Recent answers, with the gates of every token."""

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

from hydralora.data.examples import Message
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling, Token
from hydralora.inference.traces import AnswerSource

KEPT_ANSWERS = 256


@dataclass
class Answer:
    """An answer, which grows while it is generated; kept for its gates and for saving.

    Attributes:
        title: who answers, with the adapter's hash and the steering.
        has_ended: no token follows; until then the page waits for more.
        note: why it ended early, or what it waits for; "" otherwise.
        stop_requested: whether a person asked for its end; it is obeyed before the next token.
        seconds: how long the generation has taken so far.
    """

    title: str
    modules: list[str]
    messages: list[Message]
    source: AnswerSource
    sampling: Sampling
    prompt: list[Token] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    has_ended: bool = False
    note: str = ""
    stop_requested: bool = False
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    def end(self, note: str = "") -> None:
        """No token follows; the first note stays."""
        if not self.has_ended:
            self.note, self.has_ended = note, True


class Answers:
    """The last answers of all sessions, under ids that can't be guessed."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, answer: Answer) -> str:
        """Keep an answer; returns its id."""
        answer_id = uuid.uuid4().hex
        with self._lock:
            self._answers[answer_id] = answer
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        return answer_id

    def get(self, answer_id: str | None) -> Answer:
        """A kept answer.

        Raises:
            HydraError: it is no longer kept.
        """
        answer = self._answers.get(answer_id or "")
        if answer is None:
            raise HydraError("This answer's gates are no longer kept. Ask again to see them.")
        return answer
