"""Recent answers, with the gates of every token."""

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from hydralora.data.examples import Message
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling, Token
from hydralora.inference.traces import AnswerSource

KEPT_ANSWERS = 64
StripToken = list[str | int | float | None]  # as the token strip reads it (widgets/tokens.js)


@dataclass
class Answer:
    """An answer, which grows while it is generated; kept for its gates and for saving.

    Attributes:
        title: the heading of its column.
        name: the column's name.
        frozen: the selected token, counted from the start of the prompt; None for the newest.
        strip: its tokens as the token strip shows them.
        load: the sum of its tokens' gates (modules, N), and the number of tokens.
    """

    title: str
    name: str
    modules: list[str]
    messages: list[Message]
    source: AnswerSource
    sampling: Sampling
    prompt: list[Token] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    frozen: int | None = None
    strip: list[StripToken] = field(default_factory=list)
    load: tuple[np.ndarray, int] = field(default_factory=lambda: (np.zeros(()), 0))


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
