"""Values and marks in rows: the same table in every format, weights, labels, preferences, encodings, broken quotes."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hydralora import ConfigError, DatasetError
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.examples import REASONING
from hydralora.data.mapping import Mapping, parse_mapping

PRINTED = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12)
# One type a column, as a table has: Parquet knows no other.
COLUMNS = st.sampled_from(
    [
        PRINTED,
        st.integers(-(2**53), 2**53),
        st.floats(allow_infinity=False),
        st.booleans(),
        st.sampled_from(["NaN", "None", "null", "#N/A", "N/A", "", " ", "\u200b", "none", "0", "ok"]),
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    columns = {name: draw(COLUMNS) for name in ("question", "context", "answer", "task")}
    count = draw(st.integers(1, 6))
    rows = [{name: draw(values | st.none()) for name, values in columns.items()} for _ in range(count)]
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table as csv, tsv, jsonl, json or Parquet, by the usual libraries' own rules."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(text.getvalue().encode())
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables())
def test_the_same_table_gives_the_same_examples_in_every_format(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found: dict[str, tuple[object, object]] = {}
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet"):
        path = write_table(tmp_path / f"rows{suffix}", rows)
        try:
            data = read_dataset(path)
            found[suffix] = [example for example in data.examples], data.by_kind
        except DatasetError as error:
            told = str(error).replace(suffix, "")
            # Not-a-number is a text in CSV, and no value in the other formats.
            found[suffix] = re.sub(" holds only 'nan'", " is empty", told) if _has_nan(rows) else told, {}
    assert all(value == found[".csv"] for value in found.values()), found


def _has_nan(rows: list[dict[str, Any]]) -> bool:
    return any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())


def read(tmp_path: Path, *rows: dict[str, Any], mapping: Mapping | None = None) -> Dataset:
    return read_dataset(write_table(tmp_path / "rows.jsonl", list(rows)), mapping)


def test_numbers_and_booleans_are_text_with_a_note(tmp_path: Path) -> None:
    values = [3, 2.5, True, 10**20, "four"]
    data = read(tmp_path, *({"question": f"q{i}", "answer": value} for i, value in enumerate(values)))
    assert [example.answer for example in data.examples] == ["3", "2.5", "True", "100000000000000000000", "four"]
    note = data.notes["value-as-text"]
    assert (note.count, note.first.row, note.first.column) == (4, 1, "answer")
    assert "a number, 3" in note.sentence
    assert data.by_kind == {}


def test_a_mapping_chooses_what_stands_for_no_value(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "answer": "None"}, {"question": "What?", "answer": "-"}]
    assert [example.answer for example in read(tmp_path, *rows).examples] == ["-"]
    chosen = parse_mapping({"question": "question", "answer": "answer", "missing": ["-"]})
    assert [example.answer for example in read(tmp_path, *rows, mapping=chosen).examples] == ["None"]


def test_weights_and_marks_of_messages_decide_what_is_learnt(tmp_path: Path) -> None:
    def talk(**mark: Any) -> dict[str, Any]:
        first = {"role": "assistant", "content": "1st"} | mark
        turns = [{"role": "user", "content": f"One? {mark}"}, first]
        return {"messages": [*turns, {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2nd"}]}

    marks: list[dict[str, Any]] = [
        {},
        {"weight": 0},
        {"train": False},
        {"trainable": False},
        {"weight": 0.5},
        {"weight": 1},
    ]
    data = read(tmp_path, *(talk(**mark) for mark in marks))
    assert [example.untaught for example in data.examples] == [(), (1,), (1,), (1,), (), ()]
    assert {kind: note.count for kind, note in data.notes.items()} == {"answer-untaught": 3, "weight-ignored": 1}


@pytest.mark.parametrize(
    ("good", "bad"),
    [(True, False), (1, 0), ("true", "false"), ("good", "bad"), ("desirable", "undesirable"), (1, -1), (1.0, 0.0)],
)
def test_what_is_marked_as_bad_is_never_learnt(good: Any, bad: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completion": "Hello", "label": good}, {"prompt": "Hi", "completion": "Go", "label": bad}]
    for mapping in (None, parse_mapping({"question": "prompt", "answer": "completion"})):
        data = read(tmp_path, *rows, mapping=mapping)
        assert [example.answer for example in data.examples] == ["Hello"]
        assert data.by_kind == {"marked-bad": 1}
    every = parse_mapping({"question": "prompt", "answer": "completion", "label": ""})
    assert len(read(tmp_path, *rows, mapping=every).examples) == 2


def test_a_mark_that_only_a_late_row_has_is_honoured(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"question": f"q {i}", "answer": "a"} for i in range(150)]
    for row, mark in ((120, {"train": False}), (130, {"label": False}), (140, {"trainable": True})):
        rows[row] |= mark
    data = read(tmp_path, *rows)
    assert (len(data.examples), data.by_kind) == (148, {"marked-bad": 2})


def test_a_label_that_is_a_class_is_no_mark(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(4)]
    assert len(read(tmp_path, *rows).examples) == 4
    rows = [{"question": f"q {i}", "answer": "a", "label": label} for i, label in enumerate(["yes", "maybe", "no"])]
    assert len(read(tmp_path, *rows).examples) == 3


USER = {"role": "user", "content": "Hi"}
BETTER, WORSE = ({"role": "assistant", "content": text} for text in ("Hello", "Go"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"},
        {"prompt": "Hi", "rejected": "Go", "chosen": "Hello"},
        {"prompt": [USER], "chosen": [BETTER], "rejected": [WORSE]},
        {"prompt": "Hi", "chosen": [USER, BETTER], "rejected": [USER, WORSE]},
        {"chosen": [USER, BETTER], "rejected": [USER, WORSE]},
    ],
)
def test_of_a_preference_the_better_answer_is_learnt(row: dict[str, Any], tmp_path: Path) -> None:
    data = read(tmp_path, row)
    assert [list(example.messages) for example in data.examples] == [[USER, BETTER]]
    assert data.notes["rejected-left-out"].count == 1


def test_a_mark_in_a_prompt_of_messages_is_honoured(tmp_path: Path) -> None:
    history = [USER, WORSE | {"weight": 0}, {"role": "user", "content": "Again"}]
    whole = [*history, BETTER]
    data = read(
        tmp_path,
        {"prompt": history, "completion": [BETTER]},
        {"prompt": "Hi there", "completion": whole},
        {"prompt": [USER], "completion": [BETTER | {"train": True}]},
    )
    assert [(len(example.messages), example.untaught) for example in data.examples] == [(4, (1,)), (2, ())]
    assert data.by_kind == {"duplicate": 1}


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_reasoning_in_a_key_of_its_own_is_kept(key: str, tmp_path: Path) -> None:
    answered = {"role": "assistant", "content": "Hello", REASONING: "a greeting"}
    data = read(tmp_path, {"messages": [USER, BETTER | {key: "a greeting"}]})
    assert data.examples[0].messages[1] == answered
    data = read(tmp_path, {"question": "Hi", "answer": "Hello", key: "a greeting"})
    assert data.examples[0].messages[1] == answered


def test_a_column_used_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,answer\na,b,c\nd,e,f\n", encoding="utf-8")
    data = read_dataset(path)
    assert [example.answer for example in data.examples] == ["b", "e"]
    assert data.columns == ("question", "answer", "answer (2)")
    assert (data.notes["repeated-column"].count, data.notes["repeated-column"].first.column) == (2, "answer")
    second = parse_mapping({"question": "question", "answer": "answer (2)"})
    assert [example.answer for example in read_dataset(path, second).examples] == ["c", "f"]
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "answer": "b", "answer": "c"}\n', encoding="utf-8")
    data = read_dataset(path)
    assert (data.examples[0].answer, data.notes["repeated-column"].count) == ("b", 1)
    with pytest.raises(ConfigError, match="'answer' is used twice"):
        parse_mapping({"question": "answer", "answer": "answer"})


@pytest.mark.parametrize("at", [0, 2, 500, 997, 999])
def test_one_open_quote_costs_one_row_of_a_thousand(at: int, tmp_path: Path) -> None:
    rows = [f"question {i},answer {i}\n" for i in range(1000)]
    rows[at] = f'"question {at},answer {at}\n'
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n" + "".join(rows), encoding="utf-8")
    data = read_dataset(path)
    assert [example.row for example in data.examples] == [i for i in range(1, 1001) if i != at + 1]
    (problem,) = data.problems
    assert problem.row == at + 1
    assert problem.kind == ("broken-row" if at == 999 else "unclosed-quote")
    assert at == 999 or f"{999 - at} line" in problem.found


def test_an_open_quote_in_the_last_column_that_a_later_one_closes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,answer\na,"b\nc,d\ne,f\ng,h\ni,j"\nk,l\n', encoding="utf-8")
    note = read_dataset(path).notes["swallowed-rows"]
    assert (note.count, note.first.row) == (1, 1)
    assert "3 lines" in note.first.found


@pytest.mark.parametrize(
    ("encoding", "question", "answer"),
    [
        ("cp1251", "Какой город столица России?", "Москва, конечно"),
        ("cp1253", "Ποια είναι η πρωτεύουσα της Ελλάδας;", "Η Αθήνα, βέβαια"),
        ("cp1252", "Où est la bibliothèque de l'université?", "Près du café, à côté"),
    ],
)
def test_text_in_an_old_encoding_is_named_and_can_be_chosen(
    encoding: str, question: str, answer: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    rows = "".join(f'{question} {i},"{answer} {i}"\n' for i in range(20))
    path.write_bytes(("question,answer\nplain,ascii\n" + rows).encode(encoding))
    data = read_dataset(path)
    assert data.encodings == (encoding,)
    assert data.examples[1].question == f"{question} 0"
    note = data.notes["guessed-encoding"]
    assert note.count == 20
    assert encoding in note.first.found
    assert "encoding" in note.first.wanted
    chosen = parse_mapping({"question": "question", "answer": "answer", "encoding": "latin-1"})
    other = read_dataset(path, chosen)
    assert other.encodings == ("iso8859-1",)
    assert "guessed-encoding" not in other.notes
    with pytest.raises(ConfigError, match="encoding is 'klingon'"):
        parse_mapping({"question": "question", "answer": "answer", "encoding": "klingon"})


def test_a_number_that_is_none_is_no_answer(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": math.nan}, {"question": "b", "answer": 1.5}]
    for suffix in (".jsonl", ".parquet"):
        data = read_dataset(write_table(tmp_path / f"rows{suffix}", rows))
        assert (data.by_kind, [example.answer for example in data.examples]) == ({"missing-answer": 1}, ["1.5"])
