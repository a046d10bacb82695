"""Which column holds what: detected from a file's columns, or given in a small YAML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from hydralora.errors import ConfigError, DatasetError
from hydralora.recipe.reading import validation_message
from hydralora.recipe.settings import Section

Shape = Literal["alpaca", "dolly", "prompt-completion", "question-answer", "messages", "sharegpt", "text", "columns"]
CONVERSATIONS: dict[str, Shape] = {"messages": "messages", "conversations": "sharegpt", "conversation": "sharegpt"}
# Column names in public datasets, the likelier name first.
QUESTIONS = (
    "instruction",
    "prompt",
    "question",
    "query",
    "inputs",
    "problem",
    "input",
    "user",
    "human",
    "article",
    "source",
)
CONTEXTS = {"instruction": ("input", "context"), "question": ("context", "passage"), "query": ("context",)}
ANSWERS = (
    "output",
    "response",
    "completion",
    "answer",
    "targets",
    "target",
    "solution",
    "chosen",
    "assistant",
    "highlights",
    "summary",
)
TASKS = ("task", "category")
NAMED: dict[tuple[str, str], Shape] = {
    ("instruction", "output"): "alpaca",
    ("instruction", "response"): "dolly",
    ("prompt", "completion"): "prompt-completion",
    ("question", "answer"): "question-answer",
}
WANTED = (
    "Use the columns instruction, input (optional) and output; instruction, context (optional) and response; "
    "prompt and completion; question and answer; messages; conversations; or text. Or name yours in a mapping."
)


class UnknownColumns(DatasetError):
    """No mapping can be detected from the columns, so the user must give one."""

    def __init__(self, message: str, columns: Sequence[str]) -> None:
        super().__init__(message)
        self.columns = list(columns)


class Mapping(Section):
    """The columns of a dataset: a question with its answer, or a conversation, or plain text."""

    question: str | None = Field(None, description="Column with the question.")
    context: str | None = Field(None, description="Column whose text is appended to the question if it isn't empty.")
    answer: str | None = Field(None, description="Column with the expected answer.")
    messages: str | None = Field(
        None, description="Column with a conversation: a list of {role, content} or {from, value}."
    )
    text: str | None = Field(None, description="Column with plain text, all of which is learnt.")
    task: str | None = Field(None, description="Column with a row's task, used for evaluation only.")

    @model_validator(mode="after")
    def _one_way(self) -> "Mapping":
        pair = self.question is not None and self.answer is not None
        ways = [pair, self.messages is not None, self.text is not None]
        if sum(ways) != 1 or (not pair and any((self.question, self.answer, self.context))):
            raise ValueError("name question and answer, or messages, or text, and none of the others")
        return self

    @property
    def shape(self) -> Shape:
        """The common name of this layout; "columns" if it has none."""
        if self.text is not None:
            return "text"
        if self.messages is not None:
            return CONVERSATIONS.get(self.messages.lower(), "messages")
        return NAMED.get(((self.question or "").lower(), (self.answer or "").lower()), "columns")

    @property
    def columns(self) -> list[str]:
        """The columns that hold the conversation or text."""
        return [name for name in (self.question, self.context, self.answer, self.messages, self.text) if name]


def detect(columns: Sequence[str], where: str) -> Mapping:
    """The mapping that a file's columns suggest, whatever their case.

    Args:
        columns: the names of the columns, in the file's order.
        where: the file's name, for the error.

    Raises:
        UnknownColumns: the columns suggest none.
    """
    named = {name.strip().lower(): name for name in reversed(columns)}
    task = next((named[name] for name in TASKS if name in named), None)
    for name in CONVERSATIONS:
        if name in named:
            return Mapping(messages=named[name], task=task)
    answer = next((name for name in ANSWERS if name in named), None)
    question = next((name for name in QUESTIONS if name in named and name != answer), None)
    if question and answer:
        about = next((named[name] for name in CONTEXTS.get(question, ()) if name in named), None)
        return Mapping(question=named[question], context=about, answer=named[answer], task=task)
    if "text" in named:
        return Mapping(text=named["text"], task=task)
    raise UnknownColumns(f"{where}: found {', '.join(map(repr, columns)) or 'no columns'}. {WANTED}", columns)


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: it can't be read, or a setting in it is wrong.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: it can't be read as a mapping ({' '.join(str(error).split())}).") from error
    return parse_mapping(values, path.name)


def parse_mapping(values: Any, where: str = "mapping") -> Mapping:
    """A mapping from plain values.

    Raises:
        ConfigError: naming the setting, what was found and what is expected.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where}: a mapping has settings such as 'question: NAME'. Its keys: {', '.join(Mapping.model_fields)}."
        )
    try:
        return Mapping.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {validation_message(error)}") from error


def save_mapping(mapping: Mapping, path: Path) -> None:
    """Write a mapping file with the settings that are set."""
    path.write_text(yaml.safe_dump(mapping.model_dump(exclude_none=True), sort_keys=False), encoding="utf-8")
