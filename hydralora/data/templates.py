"""Chat templates: the text that a model reads of a conversation, and the mark that ends an answer.

Texts from rows and users are never control tokens: `mark_control_tokens` puts private marks around what looks like one,
and `tokens_of` then encodes it as text, both by transformers' own functions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import mark_control_tokens

from hydralora.data.examples import Message
from hydralora.models.types import Tokenizer

END = "\U000f0002"  # put behind a content, to see what the template writes after it; never in the result
PROBE: list[Message] = [
    {"role": "user", "content": "Question"},
    {"role": "assistant", "content": "Answer"},
    {"role": "user", "content": "Question"},
]


@dataclass(frozen=True)
class Answer:
    """An answer as the template writes it behind its prompt.

    Attributes:
        text: the answer as the template writes it.
        end: the mark that ends it: the template's own, which `text` doesn't contain, else the tokenizer's eos.
        by_template: whether the template writes the mark, as the plain one does.
    """

    text: str
    end: str
    by_template: bool


def has_template(tokenizer: Tokenizer) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def by_template(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """A conversation as the tokenizer's chat template writes it.

    Raises:
        TemplateError: the template refuses it.
    """
    written = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
    return str(written)


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The text up to the assistant's next answer, by the tokenizer's chat template, else by a plain one."""
    if has_template(tokenizer):
        return by_template(tokenizer, messages, add_generation_prompt=True)
    return plain_text(messages, tokenizer.eos_token or "") + "Assistant:"


def plain_text(messages: Sequence[Message], end: str) -> str:
    """A conversation where there is no template: a line for each turn, each answer with its end."""
    lines = [
        f"{message['role'].capitalize()}: {message['content']}{end if message['role'] == 'assistant' else ''}\n"
        for message in messages
    ]
    return "".join(lines)


def render_answer(tokenizer: Tokenizer, messages: Sequence[Message], prompt: str) -> Answer:
    """The last message as the template writes it after `prompt`, which is `render_prompt` of the others."""
    content, eos = messages[-1]["content"], tokenizer.eos_token or ""
    if not has_template(tokenizer):
        return Answer(f" {content}", eos, by_template=True)
    written, behind = _around_end(tokenizer, messages)
    # A template may ask for an answer in another way than it writes one: then what is asked for is taught.
    text = written[len(prompt) :] if written.startswith(prompt) else content
    mark = control_pattern(tokenizer).search(behind)
    return Answer(text + behind[: mark.start()], mark[0], True) if mark else Answer(text, eos, by_template=False)


def _around_end(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[str, str]:
    """The conversation as the template writes it: up to the end of the last content, and what comes behind it."""

    def write(content: str) -> str:
        changed = [*messages[:-1], messages[-1] | {"content": content}]
        return by_template(tokenizer, changed)

    content = messages[-1]["content"]
    written, found, behind = write(content + END).rpartition(END)
    if found and content == content.rstrip():
        return written, behind
    whole = write(content)  # a template may trim contents
    if found and whole.endswith(behind):
        return whole[: len(whole) - len(behind)], behind
    marks = list(control_pattern(tokenizer).finditer(whole))  # a template that changes contents: its last mark
    if marks and not whole[marks[-1].end() :].strip():
        return whole[: marks[-1].start()], whole[marks[-1].start() :]
    return whole, ""


@lru_cache(maxsize=64)
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def control_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Matches the texts that the tokenizer reads as one token each, whatever is around them."""
    return _pattern(tuple(text for text in tokenizer.get_added_vocab() if text.strip()))


def control_tokens(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Matches the texts that must not come from a row or a user.

    They are the special tokens, and those that the template writes around turns. Other added tokens, such as <think>,
    may be part of an answer.
    """
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special and token.content.strip()}
    return _pattern((*sorted(special), *sorted(marks_of_template(tokenizer) - special)))


def marks_of_template(tokenizer: Tokenizer) -> set[str]:
    """The tokens that the template writes around turns."""
    if not has_template(tokenizer):
        return set()
    return _marks_of_template(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=16)
def _marks_of_template(tokenizer: Tokenizer, template: str) -> set[str]:
    """The added tokens in a conversation that holds none; `template` is part of the key, since it may be replaced."""
    try:
        text = by_template(tokenizer, PROBE)
    except TemplateError:
        return set()
    return set(control_pattern(tokenizer).findall(text))


def marked(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
    """The messages with marks around what looks like a control token, and those texts."""
    pattern = control_tokens(tokenizer)
    texts = [text for message in messages for text in pattern.findall("\n".join(message.values()))]
    return mark_control_tokens(list(messages), pattern), sorted(set(texts))


def tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a part of a conversation, without any that the tokenizer adds; marked texts are encoded as text."""
    is_marked = "\U000f0000" in text or "\U000f0001" in text  # the private marks of `mark_control_tokens`
    options = {"sanitize_control_tokens": True} if is_marked else {}
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"]


def first_tokens(tokenizer: Tokenizer) -> list[int]:
    """Token ids that the tokenizer puts in front of a text: its bos, if it adds one."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    return whole[: next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)]


def started(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids of a conversation's start with exactly one bos, if the template or the tokenizer adds one."""
    first, bos = first_tokens(tokenizer), tokenizer.bos_token_id
    if first and ids[: len(first)] != first:
        ids = first + ids
    while bos is not None and ids[:2] == [bos, bos]:
        ids = ids[1:]
    return ids


def end_mark(tokenizer: Tokenizer) -> str | None:
    """The mark that ends an answer, by the template, else the tokenizer's eos; None: there is neither."""
    if not has_template(tokenizer):
        return tokenizer.eos_token
    try:
        prompt = render_prompt(tokenizer, PROBE[:1])
        return render_answer(tokenizer, PROBE[:2], prompt).end or None
    except TemplateError:
        return tokenizer.eos_token


def end_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the tokens that end an answer: the mark's, and eos, which ends plain text."""
    mark = end_mark(tokenizer)
    ids = {tokenizer.convert_tokens_to_ids(mark) if mark else None, tokenizer.eos_token_id}
    return {i for i in ids if i is not None}
