"""Encoding examples as token ids, with the answers' tokens marked: only they are trained on."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from hydralora.data.examples import Example, Message
from hydralora.data.problems import RowError
from hydralora.errors import ConfigError, DatasetError

IGNORED = -100  # the label of a token that is not trained on
TooLong = Literal["drop", "cut"]


@dataclass(frozen=True)
class Encoded:
    """One example as token ids; `labels` repeats them at the answers and is IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    example: Example

    @property
    def answer_start(self) -> int:
        """Index of the first token of the last answer."""
        start = len(self.labels)
        while start and self.labels[start - 1] != IGNORED:
            start -= 1
        return start


@dataclass(frozen=True)
class EncodedRows:
    """Rows that can be trained on, and the problems of rows left out or cut, by row number."""

    rows: list[Encoded]
    problems: list[tuple[int, RowError]]

    @property
    def by_kind(self) -> dict[str, int]:
        return dict(Counter(flaw.kind for _, flaw in self.problems))


def render_prompt(tokenizer: Any, messages: list[Message]) -> str:
    """The text up to the assistant's next answer, by the tokenizer's chat template, else by a plain one."""
    if getattr(tokenizer, "chat_template", None):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    end = {"assistant": tokenizer.eos_token or ""}
    lines = [f"{m['role'].capitalize()}: {m['content']}{end.get(m['role'], '')}\n" for m in messages]
    return "".join(lines) + "Assistant:"


def render_answer(tokenizer: Any, messages: list[Message]) -> str:
    """The text of the last message as the template writes it after the prompt, with its end-of-turn mark."""
    content = messages[-1]["content"]
    if getattr(tokenizer, "chat_template", None):
        prompt = render_prompt(tokenizer, messages[:-1])
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        if whole.startswith(prompt):
            return whole[len(prompt) :].rstrip("\n")
        return content + (tokenizer.eos_token or "")  # a template that rewrites earlier turns
    return f" {content}{tokenizer.eos_token or ''}"


def encode_prompt(tokenizer: Any, messages: list[Message]) -> list[int]:
    """Token ids of a conversation that ends with the user's turn, the same as in training.

    Raises:
        ConfigError: the chat template refuses the conversation.
    """
    try:
        return [token for ids, _ in _pieces(tokenizer, messages) for token in ids]
    except TemplateError as error:
        raise ConfigError(
            f"The model's chat template refuses this conversation ({_one_line(error)}). "
            "Leave out what it names, or start a new conversation."
        ) from error


def encode(tokenizer: Any, example: Example) -> Encoded:
    """Token ids and labels of a whole conversation; every assistant turn is trained on.

    If a template rewrites earlier turns, only the later answers, which it leaves unchanged, are trained on.

    Raises:
        RowError: the chat template refuses the conversation.
    """
    input_ids: list[int] = []
    labels: list[int] = []
    try:
        pieces = _pieces(tokenizer, list(example.messages))
    except TemplateError as error:
        raise RowError(
            "refused-by-template",
            "",
            f"is refused by the model's chat template ({_one_line(error)})",
            "Change the row, or choose another base model.",
        ) from error
    for ids, is_answer in pieces:
        input_ids += ids
        labels += ids if is_answer else [IGNORED] * len(ids)
    return Encoded(input_ids, labels, example)


def _pieces(tokenizer: Any, messages: list[Message]) -> list[tuple[list[int], bool]]:
    """A conversation's token ids in pieces, each with whether it is an answer.

    Prompts and answers are tokenised separately, so that training and generation see the same ids at every seam.
    """
    if messages[0]["role"] == "assistant":  # plain text: no template, and all of it is learnt
        start = _ids(tokenizer, "", special=True)
        return [(start, False), (_ids(tokenizer, messages[0]["content"] + (tokenizer.eos_token or ""), False), True)]
    pieces: list[tuple[list[int], bool]] = []
    written = ""
    answered = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    for end in answered if messages[-1]["role"] == "assistant" else [*answered, len(messages)]:
        prompt = render_prompt(tokenizer, messages[:end])
        if not prompt.startswith(written):
            pieces, written = [], ""
        special = not written and not getattr(tokenizer, "chat_template", None)
        pieces.append((_ids(tokenizer, prompt[len(written) :], special), False))
        if end < len(messages):
            answer = render_answer(tokenizer, messages[: end + 1])
            pieces.append((_ids(tokenizer, answer, special=False), True))
            written = prompt + answer
    return pieces


def encode_all(tokenizer: Any, examples: Iterable[Example], max_length: int, too_long: TooLong = "drop") -> EncodedRows:
    """Encode examples; those longer than max_length tokens are left out, or cut at their end.

    Raises:
        DatasetError: no row remains.
    """
    rows: list[Encoded] = []
    problems: list[tuple[int, RowError]] = []
    for example in examples:
        try:
            row, flaw = fit(encode(tokenizer, example), max_length, too_long)
            rows.append(row)
        except RowError as unusable:
            flaw = unusable
        if flaw:
            problems.append((example.row, flaw))
    if not rows:
        if not problems:
            raise DatasetError("There are no rows.")
        number, first = problems[0]
        raise DatasetError(f"None of {len(problems)} rows can be used. The first: row {number} {first}")
    return EncodedRows(rows, problems)


def fit(row: Encoded, max_length: int, too_long: TooLong) -> tuple[Encoded, RowError | None]:
    """A row of at most max_length tokens, and its problem if it had to be cut.

    Raises:
        RowError: it is left out.
    """
    length = len(row.input_ids)
    if length <= max_length:
        return row, None
    problem = f"has {length} tokens, and max_length is {max_length}"
    if too_long == "drop":
        raise RowError("too-long", "", problem, "Raise max_length, shorten the row, or set too_long to cut.")
    cut = Encoded(row.input_ids[:max_length], row.labels[:max_length], row.example)
    if all(label == IGNORED for label in cut.labels):
        raise RowError(
            "answer-lost", "", f"{problem}: none of its answer remains", "Raise max_length, or shorten the row."
        )
    return cut, RowError("too-long", "", problem, "It can be dropped or cut; raise max_length to keep it whole.")


def _one_line(error: TemplateError) -> str:
    return " ".join(str(error).split())


def _ids(tokenizer: Any, text: str, special: bool) -> list[int]:
    return tokenizer(text, add_special_tokens=special)["input_ids"]
