"""Data files into rows, and rows into token ids: every wrong file is a DatasetError that says where."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hydralora import ConfigError, DatasetError
from hydralora.data.formats import Example, read_file, require_different
from hydralora.data.templates import IGNORED, encode, encode_all, encode_prompt, render_prompt

ALPACA = [
    {"instruction": "Add.", "input": "1, 2", "output": "3", "task": "sum"},
    {"instruction": "Say »ä, 日«.", "input": "", "output": 'a "quoted",\nanswer', "task": "say"},
]
MESSAGES = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2"},
        ]
    },
]


def write(path: Path, rows: list[dict[str, Any]], bom: bool = False) -> Path:
    """Rows as the file type that the path's suffix says."""
    encoding = "utf-8-sig" if bom else "utf-8"
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
                )
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding=encoding)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows), encoding=encoding)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("rows", [ALPACA, MESSAGES], ids=["alpaca", "messages"])
def test_every_format_and_shape_gives_the_same_rows(rows: list[dict[str, Any]], suffix: str, tmp_path: Path) -> None:
    data = read_file(write(tmp_path / f"rows{suffix}", rows))
    assert data.shape == ("messages" if "messages" in rows[0] else "alpaca")
    assert [example.row for example in data.examples] == [1, 2]
    if data.shape == "messages":
        assert [list(example.messages) for example in data.examples] == [row["messages"] for row in rows]
        assert data.tasks is None
    else:
        assert [example.question for example in data.examples] == ["Add.\n\n1, 2", "Say »ä, 日«."]
        assert [example.answer for example in data.examples] == [row["output"] for row in rows]
        assert data.tasks == ["sum", "say"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_not_text(suffix: str, tmp_path: Path) -> None:
    assert len(read_file(write(tmp_path / f"rows{suffix}", ALPACA, bom=True)).examples) == 2


def test_another_column_can_hold_the_task(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b", "skill": 7}])
    assert read_file(path, task_column="skill").tasks == ["7"]


GOOD = json.dumps(ALPACA[0])
DEEP = "[" * 100_000
TURN = '{"role": "user", "content": "Hi"}'
ANSWER = '{"role": "assistant", "content": "Hello"}'
FIRST = f'{{"messages": [{TURN}, {ANSWER}]}}'


def bad(*messages: str) -> str:
    return f'{FIRST}\n{{"messages": [{", ".join(messages)}]}}'


WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "missing answer": ("a.jsonl", f'{GOOD}\n{{"instruction": "x"}}', "row 2.*'output'.*empty"),
    "missing answer in row 1": ("a.jsonl", '{"instruction": "x"}', "row 1.*instruction.*output"),
    "null answer": ("a.jsonl", f'{GOOD}\n{{"instruction": "x", "output": null}}', "row 2.*'output'.*empty"),
    "blank answer": ("a.jsonl", f'{GOOD}\n{{"instruction": "x", "output": "  "}}', "row 2.*'output'.*empty"),
    "empty instruction": ("a.jsonl", f'{GOOD}\n{{"instruction": "", "output": "y"}}', "row 2.*'instruction'.*empty"),
    "number for text": ("a.jsonl", f'{GOOD}\n{{"instruction": "x", "output": 3}}', "row 2.*'output'.*number.*text"),
    "bool for text": ("a.jsonl", f'{GOOD}\n{{"instruction": true, "output": "y"}}', "row 2.*'instruction'.*true/false"),
    "list for text": ("a.jsonl", f'{GOOD}\n{{"instruction": "x", "input": [], "output": "y"}}', "row 2.*'input'.*list"),
    "half a character": (
        "a.jsonl",
        f'{GOOD}\n{{"instruction": "x", "output": "\\ud800"}}',
        "row 2.*'output'.*character",
    ),
    "broken JSON": ("a.jsonl", f'{GOOD}\n{{"instruction": "x",', "row 2.*not JSON"),
    "deep JSON line": ("a.jsonl", f"{GOOD}\n{DEEP}", "row 2.*not JSON"),
    "null row": ("a.jsonl", f"{GOOD}\nnull", "row 2.*null.*object"),
    "null row first": ("a.jsonl", f"null\n{GOOD}", "row 1.*null"),
    "list row": ("a.jsonl", f"{GOOD}\n[1]", "row 2.*list"),
    "no known column": ("a.jsonl", '{"prompt": "x", "answer": "y"}', "row 1.*prompt.*instruction"),
    "not UTF-8": ("a.jsonl", b'{"instruction": "\xe9", "output": "y"}', "UTF-8"),
    "UTF-16": ("a.csv", "instruction,output\nx,y\n".encode("utf-16"), "UTF-8"),
    "empty": ("a.jsonl", "", "no rows"),
    "only blank lines": ("a.jsonl", "\n \n", "no rows"),
    "empty json": ("a.json", "[]", "no rows"),
    "no JSON at all": ("a.json", "", "can't be read as json"),
    "object at the top": ("a.json", '{"data": []}', "object at the top.*array"),
    "deep JSON": ("a.json", DEEP, "deep"),
    "number with 5000 digits": ("a.json", f"[{'1' * 5000}]", "can't be read as json"),
    "wrong suffix": ("a.txt", GOOD, r"\.txt.*\.jsonl"),
    "no suffix": ("rows", GOOD, r"\(none\).*\.jsonl"),
    "header alone": ("a.csv", "instruction,output\n", "no rows"),
    "short csv row": ("a.csv", "instruction,input,output\na,b,c\nx,y\n", "row 2.*2 cells.*3"),
    "long csv row": ("a.csv", "instruction,output\na,b\nx,y,z,w\n", "row 2.*4 cells.*2"),
    "open quote": ("a.csv", 'instruction,output\n"a,b\n', "can't be read as csv"),
    "not parquet": ("a.parquet", "PAR1 no", "can't be read as parquet"),
    "messages as text": ("a.jsonl", '{"messages": "Hello"}', "row 1.*'messages'.*not JSON"),
    "messages as number": ("a.jsonl", '{"messages": 3}', "row 1.*'messages'.*number.*list"),
    "messages empty": ("a.jsonl", '{"messages": []}', "row 1.*'messages'.*list"),
    "messages null": ("a.jsonl", f'{FIRST}\n{{"messages": null}}', "row 2.*'messages'.*null"),
    "messages of text": ("a.jsonl", bad('"Hi"'), "row 2.*'messages'.*text as message 1"),
    "unknown role": ("a.jsonl", bad('{"role": "bot", "content": "x"}'), "row 2.*'bot'.*message 1.*user"),
    "role as list": ("a.jsonl", bad('{"role": [], "content": "x"}'), r"row 2.*\[\].*message 1"),
    "no content": ("a.jsonl", bad(TURN, '{"role": "assistant"}'), "row 2.*no text in message 2"),
    "half a character in a message": ("a.jsonl", bad(TURN, ANSWER.replace("Hello", "\\udc00")), "row 2.*message 2"),
    "assistant first": ("a.jsonl", bad(ANSWER, TURN), "row 2.*assistant, user"),
    "user last": ("a.jsonl", bad(TURN, ANSWER, TURN), "row 2.*last"),
    "two users": ("a.jsonl", bad(TURN, TURN), "row 2.*user, user"),
    "system late": ("a.jsonl", bad(TURN, '{"role": "system", "content": "x"}', ANSWER), "row 2.*system"),
    "system alone": ("a.jsonl", bad('{"role": "system", "content": "x"}'), "row 2.*system"),
}


@pytest.mark.parametrize(
    ("shape", "row", "asked"),
    [
        ("alpaca", {"instruction": "Add.", "input": "1, 2", "output": "3"}, "Add.\n\n1, 2"),
        ("dolly", {"instruction": "Add.", "context": "1, 2", "response": "3", "category": "x"}, "Add.\n\n1, 2"),
        ("dolly", {"instruction": "Add 1, 2.", "context": "", "response": "3"}, "Add 1, 2."),
        ("prompt-completion", {"prompt": "Add 1, 2.", "completion": "3"}, "Add 1, 2."),
        ("question-answer", {"question": "Add 1, 2.", "answer": "3", "id": 4}, "Add 1, 2."),
    ],
)
def test_the_shape_is_told_by_the_columns(shape: str, row: dict[str, Any], asked: str, tmp_path: Path) -> None:
    read = read_file(write(tmp_path / "rows.jsonl", [row]))
    assert read.shape == shape
    assert (read.examples[0].question, read.examples[0].answer) == (asked, "3")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_says_where_and_how_to_fix_it(name: str, tmp_path: Path) -> None:
    file, content, message = WRONG[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as caught:
        read_file(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(caught.value).startswith(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.jsonl", "folder.jsonl"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DatasetError, match="no such file"):
        read_file(tmp_path / name)


def test_held_out_rows_may_not_be_training_rows(tmp_path: Path) -> None:
    train = read_file(write(tmp_path / "train.jsonl", ALPACA))
    again = ALPACA[0] | {"instruction": " ADD. \n"}  # the same but for case and spaces
    new = {"instruction": "Add.", "input": "1, 3", "output": "4"}
    require_different(train, read_file(write(tmp_path / "new.jsonl", [new])))
    with pytest.raises(DatasetError, match=r"again\.jsonl, row 2: .*train\.jsonl"):
        require_different(train, read_file(write(tmp_path / "again.jsonl", [new, again])))


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
    assert [row.example for row in encode_all(tokenizer, [long, short], limit)] == [short]
    with pytest.raises(DatasetError, match=rf"All 2 rows.*max_length={limit - 1}.*the longest has \d+"):
        encode_all(tokenizer, [long, short], limit - 1)


REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize("template", [REFUSES_SYSTEM, "{% if %}", "{{ messages[0].content.missing.name }}"])
def test_a_template_that_refuses_says_so(template: str, tokenizer: Any) -> None:
    refusing = with_template(tokenizer, template)
    turns = ({"role": "system", "content": "Be short."}, *conversation("Hi", "Hello").messages)
    with pytest.raises(DatasetError, match=r"^Row 7: .*template refuses"):
        encode(refusing, Example(7, turns))
    with pytest.raises(ConfigError, match=r"template refuses"):
        encode_prompt(refusing, list(turns[:-1]))


def test_a_parquet_file_that_unpacks_to_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"instruction": f"say {i} " + "x" * 1000, "output": "y"} for i in range(500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd", row_group_size=100)
    monkeypatch.setattr("hydralora.data.formats.MAX_UNPACKED", 100_000)
    monkeypatch.delattr(pyarrow.parquet.ParquetFile, "read")
    assert path.stat().st_size < 100_000
    with pytest.raises(DatasetError, match=r"rows\.parquet: it unpacks to"):
        read_file(path)
