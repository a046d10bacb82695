"""Encoding examples as token ids, with the answers' tokens marked: only they are trained on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from jinja2 import TemplateError

from hydralora.data.examples import REASONING, Example, Message
from hydralora.data.problems import Kind, RowError
from hydralora.data.templates import marked, render_answer, render_prompt, started, tokens_of
from hydralora.errors import ConfigError, DatasetError
from hydralora.models.types import Tokenizer
from hydralora.recipe.settings import ControlTokens, Recipe, TooLong
from hydralora.tuner.structure import IGNORED as IGNORED

KEPT: tuple[Kind, ...] = ("control-token", "reasoning-left-out")  # problems of rows that are used all the same


@dataclass(frozen=True)
class Encoded:
    """A conversation as token ids; `labels` repeats them at the answers and is IGNORED elsewhere.

    Attributes:
        turns: number of the example's messages that it holds. A template that rewrites earlier turns gives several of
            them for one example, and each answer is trained on in one.
        head: the row's own head, where one is named from outside.
    """

    input_ids: list[int]
    labels: list[int]
    example: Example
    turns: int = 0
    head: int | None = None

    @property
    def answer_start(self) -> int:
        """Index of the first token of the last answer."""
        start = len(self.labels)
        while start and self.labels[start - 1] != IGNORED:
            start -= 1
        return start

    @property
    def is_whole(self) -> bool:
        """Whether it ends with the example's last message."""
        return self.turns == len(self.example.messages)


@dataclass(frozen=True)
class EncodedRows:
    """Rows that can be trained on, and the problems of rows left out, cut or changed, by row number."""

    rows: list[Encoded]
    problems: list[tuple[int, RowError]]

    @property
    def by_kind(self) -> dict[str, int]:
        return dict(Counter(flaw.kind for _, flaw in self.problems))


@dataclass(frozen=True)
class _Piece:
    """A part of a conversation: its token ids, and the index of its message if it is an answer.

    Attributes:
        reasoning_lost: whether the answer has a reasoning that the template doesn't write.
    """

    ids: list[int]
    message: int | None = None
    reasoning_lost: bool = False


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation that ends with the user's turn, the same as in training.

    What looks like a control token in a message is encoded as text.

    Raises:
        ConfigError: the chat template refuses the conversation, or the tokenizer can't encode it.
    """
    try:
        *_, (pieces, _) = _sequences(tokenizer, marked(tokenizer, messages)[0])
        return [token for piece in pieces for token in piece.ids]
    except (TemplateError, ValueError) as error:
        raise ConfigError(
            f"The model's chat template refuses this conversation ({_one_line(error)}). "
            "Leave out what it names, or start a new conversation."
        ) from error


def encode(tokenizer: Tokenizer, example: Example, control_tokens: ControlTokens = "text") -> list[Encoded]:
    """Token ids and labels of a conversation; every answer that its row doesn't exclude is trained on.

    A template may write an earlier turn in another way than when it was the last one, for example without its
    reasoning. The answers are then in several rows, each with its history as the template writes it.

    Raises:
        RowError: the chat template refuses the conversation, or the row is left out for its control tokens.
    """
    return _encode(tokenizer, example, control_tokens)[0]


def _encode(
    tokenizer: Tokenizer, example: Example, control_tokens: ControlTokens
) -> tuple[list[Encoded], list[RowError]]:
    """`encode`, and what the model reads otherwise than it is written in the row."""
    messages, texts = marked(tokenizer, example.messages)
    if texts and control_tokens == "drop":
        raise _control_token(texts, "Remove it, or set data.control_tokens to text.")
    changes = []
    if texts and control_tokens == "text":
        fix = "It is read as text. Remove it, or set data.control_tokens to drop or parse."
        changes.append(_control_token(texts, fix))
    try:
        sequences = list(_sequences(tokenizer, example.messages if control_tokens == "parse" else messages))
    except (TemplateError, ValueError) as error:
        raise RowError(
            "refused-by-template",
            "",
            f"is refused by the model's chat template ({_one_line(error)})",
            "Change the row, or choose another base model.",
        ) from error
    if any(piece.reasoning_lost for pieces, _ in sequences for piece in pieces):
        fix = "The answer is learnt without it. Write it into the answer, or choose another base model."
        changes.append(RowError("reasoning-left-out", "", "has a reasoning that the chat template doesn't write", fix))
    rows = (_encoded(example, pieces, turns) for pieces, turns in sequences)
    return [row for row in rows if any(label != IGNORED for label in row.labels)], changes


def _encoded(example: Example, pieces: Sequence[_Piece], turns: int) -> Encoded:
    input_ids: list[int] = []
    labels: list[int] = []
    for piece in pieces:
        learnt = piece.message is not None and piece.message not in example.untaught
        input_ids += piece.ids
        labels += piece.ids if learnt else [IGNORED] * len(piece.ids)
    return Encoded(input_ids, labels, example, turns)


def _sequences(tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterator[tuple[list[_Piece], int]]:
    """A conversation in pieces, with the number of its messages; in several parts if the template rewrites turns.

    Prompts and answers are tokenised separately, so that training and generation see the same ids at every seam.
    """
    if messages[0]["role"] == "assistant":  # plain text: no template, and all of it is learnt
        text, eos = messages[0]["content"], tokenizer.eos_token or ""
        ids = tokens_of(tokenizer, text if eos and text.rstrip().endswith(eos) else text + eos)
        whole = started(tokenizer, ids)
        yield [_Piece(whole[: len(whole) - len(ids)]), _Piece(ids[max(0, len(ids) - len(whole)) :], 0)], 1
        return
    pieces: list[_Piece] = []
    written, turns = "", 0
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    for end in answers if messages[-1]["role"] == "assistant" else [*answers, len(messages)]:
        prompt = render_prompt(tokenizer, messages[:end])
        if written and not prompt.startswith(written):
            yield pieces, turns
            pieces, written = [], ""
        ids = tokens_of(tokenizer, prompt[len(written) :])
        pieces.append(_Piece(ids if written else started(tokenizer, ids)))
        if end < len(messages):
            answer = render_answer(tokenizer, messages[: end + 1], prompt)
            lost = messages[end].get(REASONING, "").strip() not in answer.text
            pieces.append(_Piece(tokens_of(tokenizer, answer.text + answer.end), end, lost))
            written, turns = prompt + answer.text + (answer.end if answer.by_template else ""), end + 1
    yield pieces, len(messages)


def encode_all(
    tokenizer: Tokenizer,
    examples: Iterable[Example],
    max_length: int,
    too_long: TooLong = "drop",
    control_tokens: ControlTokens = "text",
) -> EncodedRows:
    """Encode examples; those longer than max_length tokens are left out, or cut at their end.

    Raises:
        DatasetError: no row remains.
    """
    rows: list[Encoded] = []
    problems: list[tuple[int, RowError]] = []
    most = max_length * longest_token(tokenizer)
    for example in examples:
        try:
            wholes, flaws = _encode(tokenizer, _shortened(example, most, max_length, too_long), control_tokens)
            for whole in wholes:
                row, flaw = _fitted(whole, max_length, too_long)
                rows += [row] if row else []
                flaws += [flaw] if flaw else []
        except RowError as unusable:
            flaws = [unusable]
        problems += [(example.row, flaw) for flaw in flaws]
    if not rows:
        left_out = [(number, flaw) for number, flaw in problems if flaw.kind not in KEPT]
        if not left_out:
            raise DatasetError("There are no rows.")
        number, first = left_out[0]
        raise DatasetError(f"None of {len(left_out)} rows can be used. The first: row {number} {first}")
    return EncodedRows(rows, problems)


@lru_cache(maxsize=4)
def longest_token(tokenizer: Tokenizer) -> int:
    """Characters of the longest token of a tokenizer's vocabulary: n tokens stand for at most n times as many."""
    return max(map(len, tokenizer.get_vocab()), default=1)


def _shortened(example: Example, most: int, max_length: int, too_long: TooLong) -> Example:
    """An example with at most twice as many characters as max_length tokens can stand for, so that no more are encoded.

    Raises:
        RowError: it is left out, since it has more than max_length tokens.
    """
    if len(example.everything) <= most:
        return example
    problem = f"has {len(example.everything):,} characters, more than max_length={max_length} tokens"
    if too_long == "drop":
        raise RowError("too-long", "", problem, "Raise max_length, shorten the row, or set too_long to cut.")
    messages: list[Message] = []
    left = 2 * most
    for message in example.messages:
        messages.append(message | {"content": message["content"][:left]})
        left -= len(message["content"])
        if left <= 0:
            break
    if messages[-1]["role"] != "assistant":
        messages = messages[: max((i + 1 for i, m in enumerate(messages) if m["role"] == "assistant"), default=0)]
    if not messages:
        raise RowError(
            "answer-lost", "", f"{problem}: none of its answer remains", "Raise max_length, or shorten the row."
        )
    return replace(example, messages=tuple(messages))


def encode_rows(
    tokenizer: Tokenizer, examples: Iterable[Example], recipe: Recipe, too_long: TooLong | None = None
) -> EncodedRows:
    """`encode_all` by a recipe's settings; `too_long` replaces its own.

    Raises:
        DatasetError: no row remains.
    """
    training = recipe.training
    return encode_all(
        tokenizer, examples, training.max_length, too_long or training.too_long, recipe.data.control_tokens
    )


def with_heads(rows: Sequence[Encoded], labels: Sequence[int]) -> list[Encoded]:
    """Rows whose component names their head; a row in none (-1) has the first one."""
    return [replace(row, head=max(label, 0)) for row, label in zip(rows, labels, strict=True)]


def _control_token(texts: Sequence[str], fix: str) -> RowError:
    return RowError("control-token", "", f"holds {', '.join(texts)}, which is a control token of the base model", fix)


def _fitted(row: Encoded, max_length: int, too_long: TooLong) -> tuple[Encoded | None, RowError | None]:
    """`fit`, with None for a row that is left out."""
    try:
        return fit(row, max_length, too_long)
    except RowError as unusable:
        return None, unusable


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
    cut = Encoded(row.input_ids[:max_length], row.labels[:max_length], row.example, row.turns)
    if all(label == IGNORED for label in cut.labels):
        raise RowError(
            "answer-lost", "", f"{problem}: none of its answer remains", "Raise max_length, or shorten the row."
        )
    return cut, RowError("too-long", "", problem, "It can be dropped or cut; raise max_length to keep it whole.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
