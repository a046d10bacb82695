"""Checks of a base model's chat template: whether what is taught is what is asked for, and what is awaited."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from jinja2 import TemplateError

from hydralora.data.encoding import encode, encode_prompt
from hydralora.data.examples import REASONING, Example, Message
from hydralora.data.templates import (
    PROBE,
    by_template,
    control_tokens,
    end_mark,
    first_tokens,
    has_template,
    marks_of_template,
    render_answer,
    render_prompt,
)
from hydralora.errors import HydraError
from hydralora.models.embeddings import untrained_tokens
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.types import Tokenizer

State = Literal["ok", "note", "problem"]
OUTPUT_LAYERS = ("lm_head", "embed_out")  # names of the layer that predicts tokens
TALK = Example(1, (*PROBE, {"role": "assistant", "content": "Answer"}))


@dataclass(frozen=True)
class Check:
    """One question about a template: the answer, and what to do where it is not the best one."""

    name: str
    state: State
    found: str
    fix: str = ""


def check_base(files: BaseModelFiles, tokenizer: Tokenizer, trained: Collection[str] = ()) -> list[Check]:
    """Check a base model's template.

    Args:
        tokenizer: the base model's.
        trained: names of the layers that a run trains or adapts besides the usual ones.
    """
    checks = list(check_template(tokenizer, _configured_ends(files)))
    if any(check.name == "template-renders" and check.state == "problem" for check in checks):
        return checks
    return [*checks, _marks_trained(tokenizer, files, trained)]


def check_template(tokenizer: Tokenizer, configured_ends: Collection[int] = ()) -> Iterator[Check]:
    """Check a tokenizer's template; `configured_ends` are the ids that end a text by the model's generation config."""
    if not has_template(tokenizer):
        found = "The model has no chat template; conversations are written as lines, User: and Assistant:."
        yield Check("template-present", "note", found, "For a chat model, choose its instruct version.")
    else:
        yield Check("template-present", "ok", "The model has a chat template.")
    try:
        prompt = render_prompt(tokenizer, PROBE[:1])
        answer = render_answer(tokenizer, PROBE[:2], prompt)
    except (TemplateError, TypeError, ValueError) as error:
        found = f"It refuses a question with its answer ({' '.join(str(error).split())[:200]})."
        yield Check("template-renders", "problem", found, "Choose another base model, or mend its chat_template.")
        return
    yield Check("template-renders", "ok", "A question with its answer is written as it should be.")
    yield _end_written(tokenizer, answer.by_template)
    yield _end_awaited(tokenizer, configured_ends)
    yield _one_bos(tokenizer)
    yield _prompt_is_prefix(tokenizer)
    yield _turns_kept(tokenizer)
    yield _contents_as_text(tokenizer)


def _end_written(tokenizer: Tokenizer, is_templates: bool) -> Check:
    mark = end_mark(tokenizer)
    if not mark:
        found = "Neither the template nor the tokenizer has a mark that ends an answer, so answers never end."
        return Check("end-written", "problem", found, "Set the tokenizer's eos_token.")
    if is_templates:
        return Check("end-written", "ok", f"An answer ends with {mark}.")
    found = f"The template writes no mark behind an answer; {mark} is taught there."
    return Check("end-written", "note", found, "Other programs that write conversations with it leave the mark out.")


def _end_awaited(tokenizer: Tokenizer, configured: Collection[int]) -> Check:
    mark = end_mark(tokenizer)
    token = tokenizer.convert_tokens_to_ids(mark) if mark else None
    awaited = set(configured) or {tokenizer.eos_token_id}
    if token is None or token in awaited:
        return Check("end-awaited", "ok", f"Generation stops at {mark}." if mark else "There is no mark to await.")
    found = f"The model's generation config doesn't stop at {mark} (id {token}). Here it does."
    return Check("end-awaited", "note", found, f"In other programs, generate with eos_token_id={token}.")


def _one_bos(tokenizer: Tokenizer) -> Check:
    bos, name = tokenizer.bos_token_id, tokenizer.bos_token
    ids = encode_prompt(tokenizer, PROBE[:1])
    count = next((i for i, token in enumerate(ids) if token != bos), len(ids)) if bos is not None else 0
    found = (
        f"A prompt starts with {'one' if count == 1 else count} {name}." if count else "A prompt starts without a bos."
    )
    if count > 1:
        return Check("one-bos", "problem", found, "Mend the chat_template, which writes it more than once.")
    if bos is None or not has_template(tokenizer) or bos not in first_tokens(tokenizer):
        return Check("one-bos", "ok", found)
    twice = render_prompt(tokenizer, PROBE[:1]).startswith(name)
    doing = "write two: template and tokenizer both add it" if twice else "lose it: only the tokenizer adds it"
    return Check("one-bos", "note", found, f"Other programs may {doing}.")


def _prompt_is_prefix(tokenizer: Tokenizer) -> Check:
    prompt = render_prompt(tokenizer, PROBE[:1])
    if has_template(tokenizer) and not by_template(tokenizer, PROBE[:2]).startswith(prompt):
        found = "The template asks for an answer in another way than it writes one into a conversation."
        return Check("prompt-is-prefix", "note", found, "What is asked for is taught, with the answer behind it.")
    return Check("prompt-is-prefix", "ok", "A conversation begins with the prompt of its answer.")


def _turns_kept(tokenizer: Tokenizer) -> Check:
    thought: list[Message] = [m | {REASONING: "Reason"} if m["role"] == "assistant" else m for m in TALK.messages]
    plain, reasoned = len(encode(tokenizer, TALK)), len(encode(tokenizer, Example(1, tuple(thought))))
    if max(plain, reasoned) == 1:
        return Check("turns-kept", "ok", "Earlier turns are written as they were.")
    what = "earlier turns" if plain > 1 else "the reasoning of earlier turns"
    found = f"The template rewrites {what}."
    return Check("turns-kept", "note", found, "Each answer is taught in a row of its own, with its history as written.")


def _contents_as_text(tokenizer: Tokenizer) -> Check:
    marks = [text for text in tokenizer.get_added_vocab() if control_tokens(tokenizer).fullmatch(text)]
    control = {tokenizer.convert_tokens_to_ids(text) for text in marks}

    def count(content: str) -> int:
        return sum(token in control for token in encode_prompt(tokenizer, [{"role": "user", "content": content}]))

    try:
        if count("Question" + "".join(marks)) == count("Question"):
            return Check(
                "contents-as-text", "ok", f"The {len(marks)} control tokens are text where a content holds them."
            )
        found = "Control tokens in a content can't be told from the template's."
    except HydraError as error:
        found = str(error)
    return Check("contents-as-text", "problem", found, "Set data.control_tokens to drop, and don't serve it to others.")


def _marks_trained(tokenizer: Tokenizer, files: BaseModelFiles, trained: Collection[str]) -> Check:
    """Whether the base model has learnt the template's marks: a mark that it hasn't learnt is hard to predict."""
    marks = marks_of_template(tokenizer) | {end_mark(tokenizer) or ""} - {""}
    ids = {int(str(tokenizer.convert_tokens_to_ids(mark))): mark for mark in sorted(marks)}
    untrained = untrained_tokens(files, ids)
    if not untrained:
        return Check("marks-trained", "ok", "The base model knows the template's marks.")
    names = ", ".join(ids[token] for token in sorted(untrained))
    found = f"The base model has never learnt {names}."
    if any(name.rpartition(".")[2] in OUTPUT_LAYERS for name in trained):
        return Check(
            "marks-trained", "note", found, "Its output layer is trained with the adapter, which teaches them."
        )
    fix = "Choose the instruct version, or train the output layer: tuner.modules_to_save=[embed_tokens, lm_head]."
    return Check("marks-trained", "problem", found, fix)


def _configured_ends(files: BaseModelFiles) -> set[int]:
    """The ids that end a text by the model's generation config, else by its config."""
    for name in ("generation_config.json", "config.json"):
        try:
            value = json.loads((files.folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if value is not None:
            return set(value if isinstance(value, list) else [value])
    return set()
