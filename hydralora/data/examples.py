"""Conversion of rows into conversations by a mapping."""

import json
from dataclasses import dataclass
from typing import Any

from hydralora.data.mapping import Mapping
from hydralora.data.problems import Kind, RowError, is_whole
from hydralora.data.sources import kind_of

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
FILL = "Fill it in, or drop the row."


Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


@dataclass(frozen=True)
class Example:
    """One row as a conversation that ends with the assistant's answer; plain text is an answer without a question."""

    row: int  # 1-based, over all files of the dataset
    messages: tuple[Message, ...]
    task: str | None = None

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


def to_example(row: Any, mapping: Mapping, number: int) -> Example:
    """The example of a row of a file.

    Raises:
        RowError: it can't be used.
    """
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, dict):
        raise RowError("wrong-type", "", f"is {kind_of(row)}", "Write an object with columns.")
    if mapping.messages:
        messages = _conversation(row.get(mapping.messages), mapping.messages)
    elif mapping.text:
        messages = [_turn("assistant", _text(row, mapping.text, "missing-answer"))]
    else:
        messages = _pair(row, mapping)
    task = row.get(mapping.task) if mapping.task else None
    return Example(number, tuple(messages), None if task in (None, "") else _label(task, mapping.task or ""))


def _pair(row: dict[str, Any], mapping: Mapping) -> list[Message]:
    question = _text(row, mapping.question or "", "missing-question")
    context = _text(row, mapping.context, None) if mapping.context else ""
    prompt = f"{question}\n\n{context}" if context.strip() else question
    return [_turn("user", prompt), _turn("assistant", _text(row, mapping.answer or "", "missing-answer"))]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _label(task: Any, column: str) -> str:
    if isinstance(task, (dict, list)):
        raise RowError(
            "wrong-type", column, f"holds {kind_of(task)}", "Write text, or name another column as the task."
        )
    if not is_whole(label := str(task)):
        raise RowError("undecodable", column, *HALF)
    return label


def _text(row: dict[str, Any], column: str, required: Kind | None) -> str:
    """The text in a column; `required` is the kind of problem if it is empty, or None if it may be empty."""
    value = row.get(column)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise RowError("wrong-type", column, f"holds {kind_of(value)}", "Write text.")
    if required and not value.strip():
        raise RowError(required, column, "is empty", FILL)
    if not is_whole(value):
        raise RowError("undecodable", column, *HALF)
    return value


def _conversation(value: Any, column: str) -> list[Message]:
    if isinstance(value, str):  # CSV has no lists, so there the column holds JSON
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowError("wrong-type", column, f"is not JSON ({error})", "Write a list of messages.") from error
    if not isinstance(value, list) or not value:
        raise RowError(
            "missing-answer" if value is None or value == [] else "wrong-type",
            column,
            f"holds {'an empty list' if value == [] else kind_of(value)}",
            "Write a list of {role, content} messages.",
        )
    messages = [_message(column, i, message) for i, message in enumerate(value, 1)]
    turns = [message["role"] for message in messages]
    spoken = turns[1:] if turns[0] == "system" else turns
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise RowError(
            "turn-order",
            column,
            f"has the turns {', '.join(turns)}",
            "Write them as user, assistant, ... with the assistant last; a system message may come first.",
        )
    return messages


def _message(column: str, position: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RowError(
            "wrong-type", column, f"holds {kind_of(message)} as message {position}", "Write {role, content}."
        )
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
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
    if isinstance(content, list):
        content = _parts(column, position, content)
    if content is not None and not isinstance(content, str):
        raise RowError(
            "wrong-type", column, f"holds {kind_of(content)} as the content of message {position}", "Write text."
        )
    if not content or not content.strip():
        kind: Kind = "missing-answer" if ROLES[role.lower()] == "assistant" else "missing-question"
        raise RowError(kind, column, f"has no text in message {position}", FILL)
    if not is_whole(content):
        raise RowError("undecodable", column, f"{HALF[0]} in message {position}", HALF[1])
    return _turn(ROLES[role.lower()], content)


def _parts(column: str, position: int, parts: list[Any]) -> str:
    """The text of a message in parts, as in OpenAI's format."""
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else kind_of(part)
        if kind != "text" or not isinstance(part.get("text"), str):
            raise RowError(
                "wrong-type",
                column,
                f"holds a part of type {kind!r} in message {position}",
                "Only text can be trained on; drop the row.",
            )
    return "".join(part["text"] for part in parts)


HALF = ("holds bytes or half a character that can't be written as UTF-8", "Save the file as UTF-8, or drop the row.")
