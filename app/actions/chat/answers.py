"""A conversation as the page shows it: turns, each with an answer in every column."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypedDict

from hydralora.data.examples import Message
from hydralora.errors import HydraError

from ...services import Services
from ...services.answers import Answer

COLUMNS = {"run": "Tuned", "steered": "Steered", "base": "Base model", "other": "Another run"}


class AnswerPlace(TypedDict):
    """An answer in its column: its id, who answers, and its text, in case the answer is no longer kept."""

    id: str
    title: str
    text: str


class TurnValue(TypedDict):
    """A turn: the question, the answer that a row expects ("" if unknown), and the answers by column."""

    question: str
    expected: str
    answers: dict[str, AnswerPlace]


@dataclass(frozen=True)
class Turn:
    """A question with the ids of its answers, by column."""

    question: str
    expected: str = ""
    answers: dict[str, str] = field(default_factory=dict)

    def answered(self, key: str, answer_id: str | None) -> "Turn":
        """The turn with another answer in a column; None removes it."""
        others = {other: value for other, value in self.answers.items() if other != key}
        return replace(self, answers=others if answer_id is None else others | {key: answer_id})


Turns = Sequence[Turn]


def turn_values(services: Services, turns: Turns) -> list[TurnValue]:
    """Turns as the page's conversation shows them (widgets/conversation.js)."""
    return [
        {
            "question": turn.question,
            "expected": turn.expected,
            "answers": {
                key: {"id": answer_id, "title": answer.title, "text": answer.text if answer.has_ended else ""}
                for key, (answer_id, answer) in kept_answers(services, turn.answers).items()
            },
        }
        for turn in turns
    ]


def history(services: Services, turns: Turns, key: str) -> list[Message]:
    """The conversation of a column, as messages; where it did not answer, as another one did.

    An unanswered question, which an error leaves behind, is left out.
    """
    messages: list[Message] = []
    for turn in turns:
        answers = kept_answers(services, turn.answers)
        answer = next((answers[column][1] for column in (key, *COLUMNS) if column in answers), None)
        if answer is not None:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": answer.text})
    return messages


def kept_answers(services: Services, answer_ids: Mapping[str, str]) -> dict[str, tuple[str, Answer]]:
    """The answers that are still kept, with their ids, by column."""
    answers = {}
    for key in COLUMNS:
        if answer_id := answer_ids.get(key):
            with suppress(HydraError):
                answers[key] = answer_id, services.answers.get(answer_id)
    return answers
