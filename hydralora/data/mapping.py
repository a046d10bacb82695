"""Which column holds what: detected from a file's columns, or given in a small YAML file."""

import codecs
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from hydralora.data.values import is_mark, weight_of
from hydralora.errors import ConfigError, DatasetError, listed
from hydralora.files import UnreadableError, read_yaml
from hydralora.recipe.reading import validation_message
from hydralora.recipe.section import Section

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
LABELS = ("label", "kto_tag", "desirable", "is_good", "good", "accepted", "is_correct", "correct")
WEIGHTS = ("weight", "train", "trainable")
REASONING_COLUMNS = ("reasoning_content", "reasoning", "thinking")
PREFERENCES = ("chosen", "rejected")  # the better answer, and the worse one, which is never learnt
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

    def __init__(self, message: str, columns: Sequence[str] = ()) -> None:
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
    reasoning: str | None = Field(None, description="Column with the reasoning before an answer.")
    label: str | None = Field(
        None,
        description="Column that marks a row as good or bad; bad rows are left out. If not named, it is found by its "
        "name and values.",
    )
    weight: str | None = Field(
        None,
        description="Column with a row's weight, or whether it is trained on; rows of weight 0 are left out. If not "
        "named, it is found by its name and values.",
    )
    missing: list[str] | None = Field(
        None, description="Texts that stand for no value. None: as in pandas, such as NaN."
    )
    encoding: str | None = Field(
        None, description="Encoding of the files' text, such as cp1251. If not named, it is found from the first bytes."
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Mapping":
        pair = self.question is not None and self.answer is not None
        ways = [pair, self.messages is not None, self.text is not None]
        if sum(ways) != 1 or (not pair and any((self.question, self.answer, self.context))):
            raise ValueError("name question and answer, or messages, or text, and none of the others")
        if repeated := [name for name, count in Counter(self.columns).items() if count > 1]:
            raise ValueError(f"the column {repeated[0]!r} is used twice; name each column once")
        if self.encoding is not None:
            _check_encoding(self.encoding)
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
        columns = (self.question, self.context, self.answer, self.messages, self.text, self.reasoning)
        return [name for name in columns if name]

    def reads(self, columns: Sequence[str]) -> set[str]:
        """The columns that a row's conversation, its task, its marks and the notes on it are made of."""
        named = {*self.columns, self.task, self.label, self.weight}
        special = (*LABELS, *WEIGHTS, *PREFERENCES)
        return {name for name in columns if name in named or name.strip().lower() in special}

    def describe(self) -> dict[str, Any]:
        """As plain values: every column of a row's content and its task, and what else is set."""
        always = ("question", "context", "answer", "messages", "text", "task")
        return {name: value for name, value in self.model_dump().items() if name in always or value is not None}

    def with_marks(self, rows: Sequence[Any]) -> "Mapping":
        """The mapping with the columns that mark rows as good or bad, found by their names and values in some rows.

        Those that it names already are kept. A label of 0 and 1 beside plain text is a class, and no mark.
        """
        objects = [row for row in rows if isinstance(row, dict)]

        def marking(names: tuple[str, ...], fits: Callable[[Any], bool]) -> str | None:
            columns = dict.fromkeys(str(name) for row in objects for name in row)
            for name in columns:
                values = [row[name] for row in objects if row.get(name) not in (None, "")]
                if (
                    name.strip().lower() in names
                    and name not in (*self.columns, self.task)
                    and values
                    and all(map(fits, values))
                ):
                    return name
            return None

        is_label = is_mark if self.text is None else lambda value: isinstance(value, bool)
        label = marking(LABELS, is_label) if self.label is None else self.label
        weight = marking(WEIGHTS, lambda value: is_mark(value) or weight_of(value) is not None)
        return self.model_copy(update={"label": label, "weight": weight if self.weight is None else self.weight})


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
    reasoning = next((named[name] for name in REASONING_COLUMNS if name in named), None)
    for name in CONVERSATIONS:
        if name in named:
            return Mapping(messages=named[name], task=task)
    answer = next((name for name in ANSWERS if name in named), None)
    question = next((name for name in QUESTIONS if name in named and name != answer), None)
    if question and answer:
        about = next((named[name] for name in CONTEXTS.get(question, ()) if name in named), None)
        return Mapping(question=named[question], context=about, answer=named[answer], task=task, reasoning=reasoning)
    if all(name in named for name in PREFERENCES):  # each holds the whole conversation
        return Mapping(messages=named["chosen"], task=task)
    if "text" in named:
        return Mapping(text=named["text"], task=task)
    raise UnknownColumns(f"{where}: found {listed(columns) if columns else 'no columns'}. {WANTED}", columns)


def _check_encoding(name: str) -> None:
    try:
        codecs.lookup(name)
    except LookupError as error:
        raise ValueError(f"encoding is {name!r}, which is not known; use a name such as utf-8 or cp1251") from error


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: it can't be read, or a setting in it is wrong.
    """
    try:
        values = read_yaml(path)
    except UnreadableError as error:
        raise ConfigError(f"{path}: it can't be read as a mapping ({error}).") from error
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
