"""Files into rows: what can't be used is named, row by row, and the good rows are kept."""

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hydralora import ConfigError, DatasetError
from hydralora.data import json_rows, parquet_rows, sources, unpacking
from hydralora.data.dataset import Dataset, read_dataset
from hydralora.data.mapping import Mapping, load_mapping, parse_mapping, save_mapping
from hydralora.data.problems import write_problems
from tests.engine.data.malformed import FILES, GOOD, ROWS, lines

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


def content(kind: str, rows: list[dict[str, Any]], encoding: str = "utf-8") -> bytes:
    """Rows as a file of this type."""
    if kind == ".parquet":
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file.getvalue()
    if kind in (".csv", ".tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})
        return text.getvalue().encode(encoding)
    if kind == ".json":
        return json.dumps(rows, ensure_ascii=False).encode(encoding)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows).encode(encoding)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def texts(data: Dataset) -> list[tuple[str, str]]:
    return [(example.question, example.answer) for example in data.examples]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("rows", [ALPACA, MESSAGES], ids=["alpaca", "messages"])
def test_every_type_and_shape_gives_the_same_rows(
    rows: list[dict[str, Any]], kind: str, packed: str, tmp_path: Path
) -> None:
    data = read_dataset(write(tmp_path / f"rows{kind}{packed}", content(kind, rows)))
    assert data.shape == ("messages" if "messages" in rows[0] else "alpaca")
    assert [example.row for example in data.examples] == [1, 2]
    assert (data.rows, data.by_kind, list(data.problems)) == (2, {}, [])
    if "messages" in rows[0]:
        assert [list(example.messages) for example in data.examples] == [row["messages"] for row in rows]
        assert data.tasks is None
    else:
        assert texts(data) == [("Add.\n\n1, 2", "3"), ("Say »ä, 日«.", 'a "quoted",\nanswer')]
        assert data.tasks == ["sum", "say"]


@pytest.mark.parametrize(
    ("encoding", "noticed"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("latin-1", "cp1252"),
        ("cp1252", "cp1252"),
    ],
)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_the_encoding_is_noticed(kind: str, encoding: str, noticed: str, tmp_path: Path) -> None:
    rows = [{"instruction": f"Übersetze {i}.", "output": "ça — va" if encoding != "latin-1" else "ça va"} for i in "12"]
    data = read_dataset(write(tmp_path / f"rows{kind}", content(kind, rows, encoding)))
    assert texts(data) == [(row["instruction"], row["output"]) for row in rows]
    assert data.encodings == (noticed,)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_may_be_separated_otherwise(delimiter: str, tmp_path: Path) -> None:
    rows = [["instruction", "output"], ["a, b; c", "d|e"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    assert texts(read_dataset(write(tmp_path / "a.csv", text.getvalue().encode()))) == [("a, b; c", "d|e")]


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_line_breaks_in_cells_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    rows = [{"instruction": "one\r\ntwo", "output": "three\nfour"}]
    assert texts(read_dataset(write(tmp_path / f"a{kind}", content(kind, rows)))) == [("one\r\ntwo", "three\nfour")]


def test_an_object_may_hold_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"version": 2, "rows": ALPACA, "tags": ["x"]}).encode())
    assert len(read_dataset(path).examples) == 2


@pytest.mark.parametrize(
    ("shape", "row", "asked"),
    [
        ("alpaca", {"instruction": "Add.", "input": "1, 2", "output": "3"}, "Add.\n\n1, 2"),
        ("dolly", {"instruction": "Add.", "context": "1, 2", "response": "3", "category": "x"}, "Add.\n\n1, 2"),
        ("dolly", {"instruction": "Add 1, 2.", "context": "", "response": "3"}, "Add 1, 2."),
        ("prompt-completion", {"prompt": "Add 1, 2.", "completion": "3"}, "Add 1, 2."),
        ("question-answer", {"question": "Add 1, 2.", "answer": "3", "id": 4}, "Add 1, 2."),
        ("columns", {"Question": "Add 1, 2.", "Response": "3"}, "Add 1, 2."),
        ("columns", {"inputs": "Add 1, 2.", "targets": "3", "task": "x"}, "Add 1, 2."),
        ("columns", {"problem": "Add 1, 2.", "solution": "3", "level": "x"}, "Add 1, 2."),
        ("columns", {"input": "Add 1, 2.", "output": "3"}, "Add 1, 2."),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Add 1, 2."}]},
                                   {"role": "assistant", "content": "3"}]}, "Add 1, 2."),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Add 1, 2."}, {"from": "gpt", "value": "3"}]},
         "Add 1, 2."),
        ("sharegpt", {"conversations": [{"role": "user", "content": "Add 1, 2."},
                                        {"role": "assistant", "content": "3"}]}, "Add 1, 2."),
    ],
)  # fmt: skip
def test_the_shape_is_told_by_the_columns(shape: str, row: dict[str, Any], asked: str, tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path / "rows.jsonl", lines(row)))
    assert data.shape == shape
    assert texts(data) == [(asked, "3")]


@pytest.mark.parametrize("file", ["a.txt", "a.jsonl"])
def test_plain_text_is_learnt_as_it_stands(file: str, tmp_path: Path) -> None:
    rows = b"one line\nand  another\n" if file == "a.txt" else lines({"text": "one line"}, {"text": "and  another"})
    data = read_dataset(write(tmp_path / file, rows))
    assert data.shape == "text"
    assert texts(data) == [("one line", "one line"), ("and  another", "and  another")]
    assert data.examples[0].prompt == []


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_reported_once_and_the_others_are_kept(name: str, tmp_path: Path) -> None:
    case = ROWS[name]
    path = tmp_path / case.file
    path.write_bytes(case.content)
    data = read_dataset(path)
    (problem,) = data.problems
    assert (problem.kind, problem.row, problem.file_row, problem.column) == (case.kind, case.row, case.row, case.column)
    assert re.search(case.found, problem.found), problem.found
    assert problem.sentence.startswith(f"{case.file}, row {case.row}: ")
    assert "\n" not in problem.sentence
    assert problem.wanted.endswith(".")
    assert data.by_kind == {case.kind: 1}
    assert len(data.examples) == data.rows - 1
    assert case.row not in [example.row for example in data.examples]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_says_why(name: str, tmp_path: Path) -> None:
    case = FILES[name]
    path = tmp_path / case.file
    path.write_bytes(case.content)
    with pytest.raises(DatasetError) as caught:
        read_dataset(path)
    message = str(caught.value)
    assert re.search(case.message, message), message
    assert message.startswith(case.file)
    assert "\n" not in message
    message.encode()
    read_dataset(write(tmp_path / "good.jsonl", lines(GOOD)))  # and it left nothing behind that hinders another


@pytest.mark.parametrize("name", ["missing.jsonl", "folder.jsonl"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DatasetError, match="no such file"):
        read_dataset(tmp_path / name)


def test_several_files_are_one_dataset(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", lines(GOOD, "{", GOOD | {"output": "4"}))
    two = write(tmp_path / "two.csv", b"instruction,output\nx,y\nx,y,z\nAdd.,5\n")
    data = read_dataset([one, two])
    assert data.name == "one.jsonl, two.csv"
    assert [example.row for example in data.examples] == [1, 3, 4, 6]
    places = [(problem.file, problem.file_row, problem.row) for problem in data.problems]
    assert places == [("one.jsonl", 2, 2), ("two.csv", 2, 5)]


def test_the_problems_are_written_as_csv(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path / "a.jsonl", lines(GOOD, {"instruction": 'a "b", c'}, None)))
    text = io.StringIO()
    write_problems(data.problems, text)
    header, *rows = csv.reader(io.StringIO(text.getvalue()))
    assert header == ["file", "row", "column", "kind", "found", "wanted"]
    assert [row[:4] for row in rows] == [
        ["a.jsonl", "2", "output", "missing-answer"],
        ["a.jsonl", "3", "", "wrong-type"],
    ]


def test_what_was_read_is_kept_by_content_not_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one.jsonl", lines(GOOD, "{"))
    first = read_dataset(one)
    two = write(tmp_path / "two.jsonl", one.read_bytes())
    monkeypatch.setattr("hydralora.data.dataset.records", None)  # whoever reads again fails
    again = read_dataset(two)
    assert texts(again) == texts(first)
    assert [problem.file for problem in again.problems] == ["two.jsonl"]
    monkeypatch.undo()
    write(one, lines(GOOD | {"output": "new"}))
    assert texts(read_dataset(one)) == [("Add.\n\n1, 2", "new")]
    assert read_dataset(two, Mapping(question="output", answer="input")).examples[0].question == "3"


def test_old_datasets_leave_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRALORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hydralora.data.dataset.KEPT", 3)
    read = [read_dataset(write(tmp_path / "a.jsonl", lines(GOOD | {"output": str(i)}, "{"))) for i in range(5)]
    assert len(list((tmp_path / "cache" / "datasets").glob("[!.]*"))) == 3
    for i, data in enumerate(read):  # whoever has one goes on using it
        assert data.examples[0].answer == str(i)
        assert [problem.row for problem in data.problems] == [2]


def test_reading_can_be_stopped_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRALORA_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "a.jsonl", lines(*(GOOD | {"output": str(i)} for i in range(2000))))
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_dataset(path, on_progress=stop)
    assert [path for path in (tmp_path / "cache" / "datasets").rglob("*") if path.is_file()] == []
    assert all(done <= total == path.stat().st_size for done, total in seen)
    seen.clear()
    read_dataset(path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_examples_behave_as_a_sequence(tmp_path: Path) -> None:
    rows = [GOOD | {"output": str(i)} for i in range(5000)]
    examples = read_dataset(write(tmp_path / "a.jsonl", lines(*rows))).examples
    answers = [str(i) for i in range(5000)]
    assert [example.answer for example in examples] == answers
    assert [examples[i].answer for i in (0, 4999, -1, 2000)] == ["0", "4999", "4999", "2000"]
    assert [example.answer for example in examples[10:4000:7]] == answers[10:4000:7]
    assert [example.answer for example in reversed(examples)][:3] == ["4999", "4998", "4997"]
    with pytest.raises(IndexError):
        examples[5000]


def test_another_column_can_hold_the_task(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", lines({"instruction": "a", "output": "b", "skill": 7, "category": "x"}))
    assert read_dataset(path).tasks == ["x"]
    assert read_dataset(path, task_column="skill").tasks == ["7"]
    assert read_dataset(path, Mapping(question="instruction", answer="output")).tasks is None


def test_a_mapping_is_saved_and_used_again(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", lines({"ask": "a", "say": "b", "about": "c", "kind": "d"}))
    with pytest.raises(DatasetError, match=r"'ask', 'say'.*mapping"):
        read_dataset(path)
    mapping = Mapping(question="ask", context="about", answer="say", task="kind")
    save_mapping(mapping, tmp_path / "mapping.yaml")
    data = read_dataset(path, load_mapping(tmp_path / "mapping.yaml"))
    assert (data.mapping, texts(data), data.tasks) == (mapping, [("a\n\nc", "b")], ["d"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "name question and answer"),
        ({"question": "a"}, "name question and answer"),
        ({"question": "a", "answer": "b", "text": "c"}, "none of the others"),
        ({"messages": "a", "context": "b"}, "none of the others"),
        ({"question": "a", "answer": "b", "colour": "c"}, "colour is not a setting"),
        ({"question": 1, "answer": "b"}, "question"),
        ([1], "Its keys: question"),
        (None, "Its keys: question"),
    ],
)
def test_a_wrong_mapping_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_mapping(values)


def test_a_mapping_that_names_a_missing_column_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", lines(GOOD))
    with pytest.raises(DatasetError, match="the column 'ask'; the file has 'instruction', 'input', 'output'"):
        read_dataset(path, Mapping(question="ask", answer="output"))


def test_what_unpacks_to_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"instruction": f"say {i} " + "x" * 1000, "output": "y"} for i in range(500)]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")
    packed = write(tmp_path / "rows.jsonl.gz", lines(*rows))
    inner = write(tmp_path / "rows.json", json.dumps({"data": rows}).encode())
    monkeypatch.setattr(json_rows, "MAX_WHOLE", 100_000)
    monkeypatch.setattr(parquet_rows, "MAX_GROUP", 100_000)
    monkeypatch.setattr(unpacking, "MAX_UNPACKED", 100_000)
    assert path.stat().st_size < 100_000 > packed.stat().st_size
    with pytest.raises(DatasetError, match=r"rows\.parquet: a row group of it takes"):
        read_dataset(path)
    with pytest.raises(DatasetError, match=r"rows\.jsonl\.gz: it unpacks to more"):
        read_dataset(packed)
    with pytest.raises(DatasetError, match=r"rows\.json: as one JSON object"):
        read_dataset(inner)


@pytest.mark.parametrize("value", [0, 255])
def test_a_wrong_byte_anywhere_in_a_parquet_file_is_an_error_of_the_file(value: int, tmp_path: Path) -> None:
    """Or of some of its rows; and no place of it ends the process, as some do that pyarrow is asked about."""
    columns = {"instruction": ["a", "b", "a", "c"] * 20, "output": ["x", "y"] * 40}
    path, told = tmp_path / "rows.parquet", list[str]()
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="none")
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        try:
            list(sources.records(sources.Source(path, ".parquet", False, ""), wanted=columns.keys()))
        except DatasetError as error:
            told.append(str(error))
    assert len(told) > 100
    assert all(message.startswith("rows.parquet: ") for message in told)


def test_a_row_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_ROW", 1000)
    rows = lines(GOOD, GOOD | {"output": "x" * 5000}, GOOD | {"output": "4"})
    data = read_dataset(write(tmp_path / "a.jsonl", rows))
    assert [example.answer for example in data.examples] == ["3", "4"]
    assert data.by_kind == {"broken-row": 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COLUMNS = st.sampled_from(["instruction", "input", "output", "messages", "conversations", "text", "task", "x"])
MESSAGE = st.dictionaries(st.sampled_from(["role", "from", "content", "value", "tool_calls"]), VALUES | st.sampled_from(
    ["user", "assistant", "system", "gpt", "human", "tool"]
))  # fmt: skip
ROW = st.dictionaries(COLUMNS, VALUES | st.lists(MESSAGE, max_size=4), max_size=5)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def accounted_for(path: Path) -> None:
    """Every row of a file is an example or a problem, and nothing but a DatasetError comes out."""
    try:
        data = read_dataset(path)
    except DatasetError as error:
        message = str(error)
    else:
        message = ""
        rows = sorted([example.row for example in data.examples] + [problem.row for problem in data.problems])
        assert rows == list(range(1, data.rows + 1))
        for example in data.examples:
            assert example.answer.strip()
            json.dumps(example.messages, ensure_ascii=False).encode()
    message.encode()
    assert "\n" not in message


@FUZZ
@given(st.lists(ROW, max_size=6))
def test_any_json_rows_are_accounted_for(tmp_path: Path, rows: list[Any]) -> None:
    accounted_for(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)).encode()))
    accounted_for(write(tmp_path / "a.json", json.dumps(rows).encode()))


@FUZZ
@given(st.sampled_from(sources.SUFFIXES), st.binary(max_size=200))
def test_any_bytes_are_accounted_for(tmp_path: Path, suffix: str, data: bytes) -> None:
    accounted_for(write(tmp_path / f"a{suffix}", data))
    accounted_for(write(tmp_path / f"b{suffix}", b"instruction,output\na,b\n" + data))
    accounted_for(write(tmp_path / f"c{suffix}", lines(GOOD) + b"\n" + data))


@FUZZ
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5))
def test_csv_and_jsonl_give_the_same_rows(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    named = [{"instruction": f"a{i} {one}", "output": f"b{two}"} for i, (one, two) in enumerate(rows)]
    if any("\0" in value or "\ud800" <= max(value) <= "\udfff" for row in named for value in row.values()):
        return
    jsonl = read_dataset(write(tmp_path / "a.jsonl", lines(*named)))
    assert texts(jsonl) == [(row["instruction"], row["output"]) for row in named]
    assert texts(read_dataset(write(tmp_path / "a.csv", content(".csv", named)))) == texts(jsonl)
