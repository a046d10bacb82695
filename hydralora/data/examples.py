"""Conversion of rows into conversations by a mapping."""

import json
from dataclasses import dataclass
from typing import Any

from hydralora.data.mapping import LABELS, PREFERENCES, REASONING_COLUMNS, WEIGHTS, Mapping
from hydralora.data.problems import Kind, RowError
from hydralora.data.values import MISSING, is_bad, is_scalar, kind_of, text_of, weight_of

ROLES = {  # speakers' names in datasets -> roles
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}
TOOL_ROLES = (
    "tool",
    "function",
    "function_call",
    "function_response",
    "observation",
    "tool_call",
    "tool_response",
    "ipython",
)
TOOL_KEYS = ("tool_calls", "function_call")
REASONING = "reasoning_content"  # a message's key for it; transformers renames it for templates that call it otherwise
MARKS = ("weight", "train", "trainable", "training")  # a message's keys that say whether it is to be learnt
FILL = "Fill it in, or drop the row."


Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}, and REASONING if it has one


@dataclass(frozen=True)
class Example:
    """One row as a conversation that ends with the assistant's answer; plain text is an answer without a question.

    Attributes:
        row: 1-based, over all files of the dataset.
        untaught: indices of the answers that the row marks as not to be learnt; they are only read.
    """

    row: int
    messages: tuple[Message, ...]
    task: str | None = None
    untaught: tuple[int, ...] = ()

    @property
    def prompt(self) -> list[Message]:
        """The messages before the last answer."""
        return list(self.messages[:-1])

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    @property
    def question(self) -> str:
        """The user's messages, or the plain text: the text that is clustered."""
        questions = [message["content"] for message in self.messages if message["role"] == "user"]
        return "\n".join(questions or [self.answer])

    @property
    def everything(self) -> str:
        """All messages as plain text."""
        return "\n".join(message["content"] for message in self.messages)


class _Reader:
    """Reads one row, and notes what is read otherwise than it is written."""

    def __init__(self, row: dict[str, Any], mapping: Mapping) -> None:
        self.row, self.mapping = row, mapping
        self.missing = MISSING if mapping.missing is None else tuple(mapping.missing)
        self.notes: list[RowError] = []
        self.untaught: list[int] = []

    def example(self, number: int) -> Example:
        """
        Raises:
            RowError: the row can't be used, or it is marked as not to be learnt.
        """
        self._check_marks()
        self._note_columns()
        mapping = self.mapping
        if mapping.messages:
            messages = self._turns(mapping.messages, "user")
        elif mapping.text:
            messages = [_turn("assistant", self._text(mapping.text, "missing-answer"))]
        else:
            messages = self._pair(mapping.question or "", mapping.answer or "")
        if not mapping.text:
            _check_order(messages, mapping.messages or mapping.answer or "")
        self._check_taught(messages)
        task = text_of(self.row.get(mapping.task), mapping.task, self.missing) if mapping.task else ""
        return Example(number, tuple(messages), task or None, tuple(self.untaught))

    def _check_marks(self) -> None:
        """Refuse a row that its label or its weight marks as bad."""
        for column in (self._mark(self.mapping.label, LABELS), self._mark(self.mapping.weight, WEIGHTS)):
            value = self.row.get(column) if column else None
            if value is None or not column:
                continue
            if is_bad(value):
                raise RowError(
                    "marked-bad",
                    column,
                    f"marks the row as not to be learnt ({value!r})",
                    "It is left out; to learn it, set the mapping's label and weight to ''.",
                )
            self._note_weight(column, value)

    def _mark(self, column: str | None, names: tuple[str, ...]) -> str | None:
        """The mapping's column of a mark, else one that only some rows have: named as one, and true or false."""
        if column is not None:
            return column
        used = (*self.mapping.columns, self.mapping.task)
        return next(
            (
                name
                for name, value in self.row.items()
                if isinstance(value, bool) and name not in used and name.strip().lower() in names
            ),
            None,
        )

    def _note_columns(self) -> None:
        self.notes += getattr(self.row, "notes", ())
        rejected = next((name for name in self.row if name.strip().lower() == PREFERENCES[1]), None)
        if rejected and rejected not in self.mapping.columns and self.row[rejected]:
            self.notes.append(
                RowError("rejected-left-out", rejected, "holds a worse answer", "It is not learnt; the better one is.")
            )

    def _note_weight(self, column: str, value: Any) -> None:
        if not isinstance(value, bool) and weight_of(value) not in (None, 1):
            self.notes.append(
                RowError("weight-ignored", column, f"holds the weight {value}", "Weights above 0 count as 1.")
            )

    def _pair(self, question: str, answer: str) -> list[Message]:
        prompt = self._turns(question, "user")
        if self.mapping.context and (context := self._text(self.mapping.context, None)).strip():
            prompt[-1] = prompt[-1] | {"content": f"{prompt[-1]['content']}\n\n{context}"}
        in_prompt = len(self.untaught)
        last = self._turns(answer, "assistant", len(prompt))
        if last[0]["role"] != "assistant":  # as in preference files, whose answer holds the whole conversation
            self.untaught = [i - len(prompt) for i in self.untaught[in_prompt:]]
            prompt = []
        if self.mapping.reasoning and (reasoning := self._text(self.mapping.reasoning, None)):
            last[-1] = last[-1] | {REASONING: reasoning}
        return [*prompt, *last]

    def _text(self, column: str, required: Kind | None) -> str:
        """The text in a column; `required` is the kind of problem if it is empty, or None if it may be empty."""
        value = self.row.get(column)
        text = text_of(value, column, self.missing)
        if required and not text:
            actual = "is empty" if not isinstance(value, str) or not value.strip() else f"holds only {value.strip()!r}"
            raise RowError(required, column, actual, FILL)
        if text and is_scalar(value):
            self.notes.append(
                RowError("value-as-text", column, f"holds {kind_of(value)}, {text}", "It is learnt as this text.")
            )
        return text

    def _turns(self, column: str, role: str, start: int = 0) -> list[Message]:
        """The messages in a column: a list of them, or one text; `start` is the index of the first."""
        value = self.row.get(column)
        if column != self.mapping.messages and not isinstance(value, list):
            return [_turn(role, self._text(column, "missing-answer" if role == "assistant" else "missing-question"))]
        if isinstance(value, str):  # CSV has no lists, so there it holds JSON
            value = _parsed(value, column)
        if not isinstance(value, list) or not value:
            raise RowError(
                "missing-answer" if value is None or value == [] else "wrong-type",
                column,
                f"holds {'an empty list' if value == [] else kind_of(value)}",
                "Write a list of {role, content} messages.",
            )
        return [self._message(column, start + i, i + 1, message) for i, message in enumerate(value)]

    def _message(self, column: str, index: int, position: int, message: Any) -> Message:
        if not isinstance(message, dict):
            raise RowError(
                "wrong-type", column, f"holds {kind_of(message)} as message {position}", "Write {role, content}."
            )
        role = _role(column, position, message)
        content = message.get("content", message.get("value"))
        if isinstance(content, list):
            content = _parts(column, position, content)
        try:
            text = text_of(content, column, self.missing)
        except RowError as flaw:
            raise RowError(flaw.kind, column, f"{flaw.found} in message {position}", flaw.wanted) from flaw
        if is_scalar(content):
            found = f"holds {kind_of(content)}, {text}, in message {position}"
            self.notes.append(RowError("value-as-text", column, found, "It is learnt as this text."))
        if not text:
            kind: Kind = "missing-answer" if role == "assistant" else "missing-question"
            raise RowError(kind, column, f"has no text in message {position}", FILL)
        self._note_marks(column, index, position, role, message)
        reasoning = next((message[key] for key in REASONING_COLUMNS if isinstance(message.get(key), str)), "")
        reasoning = text_of(reasoning, column, self.missing) if role == "assistant" else ""
        return _turn(role, text) | ({REASONING: reasoning} if reasoning else {})

    def _note_marks(self, column: str, index: int, position: int, role: str, message: dict[str, Any]) -> None:
        for key in MARKS:
            value = message.get(key)
            if value is None or role != "assistant":
                continue
            if is_bad(value):
                self.untaught.append(index)
                found = f"marks message {position} as not to be learnt ({key}: {value!r})"
                self.notes.append(RowError("answer-untaught", column, found, "It is only read."))
                return
            self._note_weight(column, value)

    def _check_taught(self, messages: list[Message]) -> None:
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if set(answers) <= set(self.untaught):
            raise RowError(
                "marked-bad",
                self.mapping.messages or self.mapping.answer or "",
                "marks each of its answers as not to be learnt",
                "It is left out; to learn it, remove the marks.",
            )


def to_example(row: Any, mapping: Mapping, number: int) -> tuple[Example, list[RowError]]:
    """The example of a row of a file, and notes on what is read otherwise than it is written.

    Raises:
        RowError: it can't be used.
    """
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, dict):
        raise RowError("wrong-type", "", f"is {kind_of(row)}", "Write an object with columns.")
    reader = _Reader(row, mapping)
    return reader.example(number), reader.notes


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _parsed(value: str, column: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError("wrong-type", column, f"is not JSON ({error})", "Write a list of messages.") from error


def _check_order(messages: list[Message], column: str) -> None:
    turns = [message["role"] for message in messages]
    spoken = turns[1:] if turns[0] == "system" else turns
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise RowError(
            "turn-order",
            column,
            f"has the turns {', '.join(turns)}",
            "Write them as user, assistant, ... with the assistant last; a system message may come first.",
        )


def _role(column: str, position: int, message: dict[str, Any]) -> str:
    role = message.get("role", message.get("from"))
    called = next((key for key in TOOL_KEYS if message.get(key)), None)
    if role in TOOL_ROLES or called:
        raise RowError(
            "tool-call",
            column,
            f"has a tool call in message {position} ({called or role})",
            "Tool calls can't be trained on; drop the row, or write the call as the assistant's text.",
        )
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise RowError(
            "unknown-role",
            column,
            f"has the role {role!r} in message {position}",
            f"Use {', '.join(dict.fromkeys(ROLES.values()))}.",
        )
    return ROLES[role.lower()]


def _parts(column: str, position: int, parts: list[Any]) -> str:
    """The text of a message in parts, as in OpenAI's format."""
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else kind_of(part)
        if not isinstance(part, dict) or kind != "text" or not isinstance(part.get("text"), str):
            raise RowError(
                "wrong-type",
                column,
                f"holds a part of type {kind!r} in message {position}",
                "Only text can be trained on; drop the row.",
            )
    return "".join(part["text"] for part in parts)
