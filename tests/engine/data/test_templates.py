"""Rows into token ids: what is learnt, and what the model's chat template makes of a conversation."""

from typing import Any

import pytest

from hydralora import ConfigError, DatasetError
from hydralora.data.examples import Example
from hydralora.data.problems import RowError
from hydralora.data.templates import IGNORED, encode, encode_all, encode_prompt, render_prompt


def conversation(*turns: str) -> Example:
    roles = ("user", "assistant")
    return Example(1, tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(turns)))


@pytest.fixture(params=["tokenizer", "plain_tokenizer"])
def any_tokenizer(request: pytest.FixtureRequest) -> Any:
    """With a chat template, and without."""
    return request.getfixturevalue(request.param)


def answers(tokenizer: Any, labels: list[int]) -> list[str]:
    """The text of every run of labels."""
    texts, run = [], []
    for label in [*labels, IGNORED]:
        if label != IGNORED:
            run.append(label)
        elif run:
            texts.append(tokenizer.decode(run).strip())
            run = []
    return texts


def test_only_the_answer_is_trained_on(any_tokenizer: Any) -> None:
    row = encode(any_tokenizer, conversation("What is ä?", "A letter: ä."))
    assert answers(any_tokenizer, row.labels) == [f"A letter: ä.{any_tokenizer.eos_token}"]
    assert row.labels[-1] == any_tokenizer.eos_token_id


def test_every_assistant_turn_is_trained_on(any_tokenizer: Any) -> None:
    row = encode(any_tokenizer, conversation("One?", "1st", "Two?", "2nd", "Three?", "3rd"))
    end = any_tokenizer.eos_token
    assert answers(any_tokenizer, row.labels) == [f"1st{end}", f"2nd{end}", f"3rd{end}"]
    assert len(row.labels) == len(row.input_ids)
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))
    assert answers(any_tokenizer, row.labels[row.answer_start :]) == [f"3rd{end}"]


@pytest.mark.parametrize("turns", [("Hi", "Hello"), ("One?", "1", "Two?", "2")])
def test_training_and_generation_see_the_same_prompt(any_tokenizer: Any, turns: tuple[str, ...]) -> None:
    example = conversation(*turns)
    row = encode(any_tokenizer, example)
    assert encode_prompt(any_tokenizer, example.prompt) == row.input_ids[: row.answer_start]


def test_the_chat_template_writes_the_prompt(tokenizer: Any) -> None:
    example = conversation("Hi", "Hello")
    row = encode(tokenizer, example)
    rendered = tokenizer.apply_chat_template(example.prompt, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(row.input_ids[: row.answer_start]) == rendered
    whole = tokenizer.apply_chat_template(list(example.messages), tokenize=False)
    assert tokenizer.decode(row.input_ids) == whole.rstrip("\n")


def test_without_a_template_roles_are_written_plainly(plain_tokenizer: Any) -> None:
    assert render_prompt(plain_tokenizer, list(conversation("Hi").messages)) == "User: Hi\nAssistant:"
    row = encode(plain_tokenizer, conversation("Hi", "Hello"))
    assert plain_tokenizer.decode(row.input_ids) == "User: Hi\nAssistant: Hello</s>"


def test_a_template_that_rewrites_earlier_turns_still_trains_the_last_answer(tokenizer: Any) -> None:
    last_only = (
        "{% for m in messages %}{% if m.role == 'user' or loop.last %}"
        "[{{ m.role }}] {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    row = encode(with_template(tokenizer, last_only), conversation("One?", "1st", "Two?", "2nd"))
    assert answers(tokenizer, row.labels)[-1] == "2nd<|im_end|>"
    assert len(row.labels) == len(row.input_ids)
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))


def with_template(tokenizer: Any, template: str) -> Any:
    from copy import deepcopy

    other = deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_rows_that_are_too_long_are_left_out(tokenizer: Any) -> None:
    short, long = conversation("Hi", "Hello"), conversation("Hi " * 50, "Hello")
    limit = len(encode(tokenizer, short).input_ids)
    found = encode_all(tokenizer, [long, short], limit)
    assert [row.example for row in found.rows] == [short]
    assert found.by_kind == {"too-long": 1}
    with pytest.raises(DatasetError, match=rf"None of 2 rows.*has \d+ tokens, and max_length is {limit - 1}"):
        encode_all(tokenizer, [long, short], limit - 1)


def test_rows_that_are_too_long_can_be_cut(tokenizer: Any) -> None:
    answered, unanswered = conversation("Hi", "Hello " * 50), conversation("Hi " * 50, "Hello")
    limit = len(encode(tokenizer, conversation("Hi", "Hello")).input_ids)
    found = encode_all(tokenizer, [answered, unanswered], limit, "cut")
    whole = encode(tokenizer, answered)
    assert [(row.input_ids, row.labels) for row in found.rows] == [(whole.input_ids[:limit], whole.labels[:limit])]
    assert found.by_kind == {"too-long": 1, "answer-lost": 1}


def test_plain_text_is_learnt_whole(any_tokenizer: Any) -> None:
    row = encode(any_tokenizer, Example(1, ({"role": "assistant", "content": "User: no template"},)))
    assert answers(any_tokenizer, row.labels) == [f"User: no template{any_tokenizer.eos_token}"]


REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize("template", [REFUSES_SYSTEM, "{% if %}", "{{ messages[0].content.missing.name }}"])
def test_a_template_that_refuses_says_so(template: str, tokenizer: Any) -> None:
    refusing = with_template(tokenizer, template)
    turns = ({"role": "system", "content": "Be short."}, *conversation("Hi", "Hello").messages)
    with pytest.raises(RowError, match="refused by the model's chat template"):
        encode(refusing, Example(7, turns))
    with pytest.raises(ConfigError, match=r"template refuses"):
        encode_prompt(refusing, list(turns[:-1]))


def test_a_row_that_the_template_refuses_is_left_out(tokenizer: Any) -> None:
    refusing = with_template(tokenizer, REFUSES_SYSTEM)
    good = conversation("Hi", "Hello")
    bad = Example(7, ({"role": "system", "content": "Be short."}, *good.messages))
    found = encode_all(refusing, [bad, good], 512)
    assert [row.example for row in found.rows] == [good]
    assert [(row, flaw.kind) for row, flaw in found.problems] == [(7, "refused-by-template")]
    with pytest.raises(DatasetError, match=r"None of 1 rows.*row 7 is refused by the model"):
        encode_all(refusing, [bad], 512)
