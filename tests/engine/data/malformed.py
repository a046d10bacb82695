"""Files with something wrong in them, and what reading each must say."""

import gzip
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow
import pyarrow.parquet

GOOD = {"instruction": "Add.", "input": "1, 2", "output": "3"}
TURN = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
TALK = {"messages": [TURN, ANSWER]}
SHARED = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
DEEP = "[" * 100_000


@dataclass(frozen=True)
class BadRow:
    """A file whose row `row` alone is wrong: the others are kept."""

    file: str
    content: bytes
    kind: str
    found: str  # a pattern
    column: str = ""
    row: int = 2


@dataclass(frozen=True)
class BadFile:
    """A file that can't be used at all."""

    file: str
    content: bytes
    message: str  # a pattern


def lines(*rows: Any) -> bytes:
    """JSONL; text stands for itself."""
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def alpaca(**changes: Any) -> bytes:
    """A good row, one with these changes, and another good one."""
    return lines(GOOD, {"instruction": "x", "input": "", "output": "y"} | changes, GOOD | {"output": "4"})


def talk(*messages: Any) -> bytes:
    return lines(TALK, {"messages": list(messages)})


def shared(*messages: Any) -> bytes:
    return lines(SHARED, {"conversations": list(messages)})


def parquet(*rows: dict[str, Any]) -> bytes:
    file = BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


HALF = "\\ud800"
ROWS: dict[str, BadRow] = {
    "no answer column": BadRow("a.jsonl", lines(GOOD, {"instruction": "x"}), "missing-answer", "is empty", "output"),
    "null answer": BadRow("a.jsonl", alpaca(output=None), "missing-answer", "is empty", "output"),
    "empty answer": BadRow("a.jsonl", alpaca(output=""), "missing-answer", "is empty", "output"),
    "blank answer": BadRow("a.jsonl", alpaca(output=" \n\t"), "missing-answer", "is empty", "output"),
    "empty instruction": BadRow("a.jsonl", alpaca(instruction=""), "missing-question", "is empty", "instruction"),
    "null instruction": BadRow("a.jsonl", alpaca(instruction=None), "missing-question", "is empty", "instruction"),
    "list for context": BadRow("a.jsonl", alpaca(input=[]), "wrong-type", "list", "input"),
    "object for answer": BadRow("a.jsonl", alpaca(output={"text": "y"}), "wrong-type", "object", "output"),
    "NaN for answer": BadRow("a.jsonl", alpaca(output=float("nan")), "missing-answer", "is empty", "output"),
    "NaN as text": BadRow("a.csv", b"instruction,output\na,b\nx,NaN\n", "missing-answer", "only 'NaN'", "output"),
    "None as text": BadRow("a.jsonl", alpaca(output="None"), "missing-answer", "only 'None'", "output"),
    "null as text": BadRow("a.jsonl", alpaca(output=" null "), "missing-answer", "only 'null'", "output"),
    "#N/A": BadRow("a.jsonl", alpaca(output="#N/A"), "missing-answer", "only '#N/A'", "output"),
    "NaN for question": BadRow("a.jsonl", alpaca(instruction="nan"), "missing-question", "only 'nan'", "instruction"),
    "zero-width answer": BadRow("a.jsonl", alpaca(output="\u200b\ufeff\u2060"), "missing-answer", "only", "output"),
    "no-break spaces": BadRow("a.jsonl", alpaca(output="\xa0\u3000\u3164"), "missing-answer", "only", "output"),
    "nothing in a message": BadRow(
        "a.jsonl", talk(TURN, ANSWER | {"content": "\u200b"}), "missing-answer", "message 2", "messages"
    ),
    "marked as bad": BadRow(
        "a.jsonl",
        lines(GOOD | {"label": True}, GOOD | {"output": "4", "label": False}, GOOD | {"output": "5", "label": True}),
        "marked-bad",
        "False",
        "label",
    ),
    "marked as bad in csv": BadRow("a.csv", b"prompt,completion,label\na,b,1\nc,d,0\n", "marked-bad", "'0'", "label"),
    "of weight 0": BadRow(
        "a.jsonl", lines(GOOD | {"weight": 1.0}, GOOD | {"output": "4", "weight": 0}), "marked-bad", "0", "weight"
    ),
    "not to be trained on": BadRow(
        "a.jsonl", lines(GOOD | {"train": True}, GOOD | {"output": "4", "train": False}), "marked-bad", "False", "train"
    ),
    "no message to be trained on": BadRow(
        "a.jsonl", talk(TURN, ANSWER | {"weight": 0}), "marked-bad", "each of its answers", "messages"
    ),
    "half a character": BadRow(
        "a.jsonl", lines(GOOD, f'{{"instruction": "x", "output": "{HALF}"}}'), "undecodable", "half", "output"
    ),
    "half a character in a task": BadRow(
        "a.jsonl",
        lines(GOOD, f'{{"instruction": "x", "output": "y", "task": "{HALF}"}}'),
        "undecodable",
        "half",
        "task",
    ),
    "list as task": BadRow("a.jsonl", alpaca(task=["a"]), "wrong-type", "list", "task"),
    "wrong bytes": BadRow(
        "a.jsonl",
        lines(GOOD | {"output": "ä"}) + b'\n{"instruction": "x", "output": "\xff\xfe"}',
        "undecodable",
        "bytes",
        "output",
    ),
    "wrong bytes in csv": BadRow(
        "a.csv", "instruction,output\nä,b\n".encode() + b"x,\xff\n", "undecodable", "bytes", "output"
    ),
    "cut JSON": BadRow(
        "a.jsonl", lines(GOOD, '{"instruction": "x",', GOOD | {"output": "4"}), "broken-row", "not JSON"
    ),
    "text without an end": BadRow(
        "a.jsonl", lines(GOOD, '{"instruction": "x'), "broken-row", r"Unterminated string starting at character 17"
    ),
    "two objects on a line": BadRow("a.jsonl", lines(GOOD, '{"a": 1} {"b": 2}'), "broken-row", "not JSON"),
    "single quotes": BadRow("a.jsonl", lines(GOOD, "{'instruction': 'x'}"), "broken-row", "not JSON"),
    "deep JSON line": BadRow("a.jsonl", lines(GOOD, DEEP, GOOD | {"output": "4"}), "broken-row", "not JSON"),
    "a number of 5000 digits": BadRow("a.jsonl", lines(GOOD, "1" * 5000), "broken-row", "not JSON"),
    "null row": BadRow("a.jsonl", lines(GOOD, None), "wrong-type", "null"),
    "list row": BadRow("a.jsonl", lines(GOOD, [1]), "wrong-type", "list"),
    "text row": BadRow("a.jsonl", lines(GOOD, '"text"'), "wrong-type", "text"),
    "null row first": BadRow("a.jsonl", lines(None, GOOD), "wrong-type", "null", row=1),
    "null row in an array": BadRow("a.json", json.dumps([GOOD, None]).encode(), "wrong-type", "null"),
    "row without any known column": BadRow(
        "a.jsonl", lines(GOOD, {"text": "x"}), "missing-question", "is empty", "instruction"
    ),
    "duplicate": BadRow("a.jsonl", lines(GOOD, GOOD), "duplicate", "the same as row 1"),
    "duplicate with another key order": BadRow(
        "a.jsonl", lines(GOOD, dict(reversed(GOOD.items()))), "duplicate", "the same as row 1"
    ),
    "duplicate in csv": BadRow("a.csv", b"instruction,output\nx,y\nx,y\n", "duplicate", "the same as row 1"),
    "short csv row": BadRow("a.csv", b"instruction,input,output\na,b,c\nx,y\n", "ragged-row", "2 cells.*3"),
    "long csv row": BadRow("a.csv", b"instruction,output\na,b\nx,y,z,w\nc,d\n", "ragged-row", "4 cells.*2"),
    "short tsv row": BadRow("a.tsv", b"instruction\toutput\na\tb\nx\n", "ragged-row", "1 cells.*2"),
    "open quote in the last row": BadRow("a.csv", b'instruction,output\na,b\n"x,y\n', "broken-row", "separated values"),
    "open quote": BadRow(
        "a.csv", b'instruction,output\na,b\n"x,y\nc,d\ne,f\n', "unclosed-quote", "not closed: 2 lines"
    ),
    "open quote before a quoted cell": BadRow(
        "a.csv", b'instruction,output\na,b\n"x,y\nc,d\n"e, e",f\n', "unclosed-quote", "not closed: 2 lines"
    ),
    "open quote that a later one closes": BadRow(
        "a.csv", b'instruction,output\na,b\n"x,y\nc,d\ne,f"\n', "ragged-row", "1 cells.*2"
    ),
    "quote in the middle": BadRow("a.csv", b'instruction,output\na,b\n"x"y,z\nc,d\n', "broken-row", "separated values"),
    "empty csv cell": BadRow("a.csv", b"instruction,output\na,b\nx,\n", "missing-answer", "is empty", "output"),
    "messages as text": BadRow("a.jsonl", lines(TALK, {"messages": "Hello"}), "wrong-type", "not JSON", "messages"),
    "messages as number": BadRow("a.jsonl", lines(TALK, {"messages": 3}), "wrong-type", "number", "messages"),
    "messages empty": BadRow("a.jsonl", talk(), "missing-answer", "empty list", "messages"),
    "messages null": BadRow("a.jsonl", lines(TALK, {"messages": None}), "missing-answer", "null", "messages"),
    "messages of text": BadRow("a.jsonl", talk("Hi"), "wrong-type", "text as message 1", "messages"),
    "unknown role": BadRow(
        "a.jsonl", talk({"role": "bot", "content": "x"}), "unknown-role", "'bot' in message 1", "messages"
    ),
    "role as list": BadRow("a.jsonl", talk({"role": [], "content": "x"}), "unknown-role", r"\[\]", "messages"),
    "no role": BadRow("a.jsonl", talk({"content": "x"}, ANSWER), "unknown-role", "None in message 1", "messages"),
    "a very long role": BadRow(
        "a.jsonl", talk({"role": "x" * 10**6, "content": "x"}), "unknown-role", "^.{,220}$", "messages"
    ),
    "no content": BadRow("a.jsonl", talk(TURN, {"role": "assistant"}), "missing-answer", "message 2", "messages"),
    "empty question": BadRow(
        "a.jsonl", talk({"role": "user", "content": ""}, ANSWER), "missing-question", "message 1", "messages"
    ),
    "picture": BadRow(
        "a.jsonl",
        talk({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER),
        "wrong-type",
        "'image_url' in message 1",
        "messages",
    ),
    "a bare text among a message's parts": BadRow(
        "a.jsonl",
        talk({"role": "user", "content": ["hello"]}, ANSWER),
        "wrong-type",
        "'text' in message 1",
        "messages",
    ),
    "half a character in a message": BadRow(
        "a.jsonl",
        lines(TALK, json.dumps({"messages": [TURN, ANSWER | {"content": "X"}]}).replace("X", HALF)),
        "undecodable",
        "message 2",
        "messages",
    ),
    "assistant first": BadRow("a.jsonl", talk(ANSWER, TURN), "turn-order", "assistant, user", "messages"),
    "user last": BadRow("a.jsonl", talk(TURN, ANSWER, TURN), "turn-order", "user, assistant, user", "messages"),
    "two users": BadRow("a.jsonl", talk(TURN, TURN), "turn-order", "user, user", "messages"),
    "two assistants": BadRow("a.jsonl", talk(TURN, ANSWER, ANSWER), "turn-order", "assistant, assistant", "messages"),
    "system late": BadRow(
        "a.jsonl", talk(TURN, {"role": "system", "content": "x"}, ANSWER), "turn-order", "system", "messages"
    ),
    "system alone": BadRow("a.jsonl", talk({"role": "system", "content": "x"}), "turn-order", "system", "messages"),
    "tool message": BadRow(
        "a.jsonl", talk(TURN, {"role": "tool", "content": "4"}, ANSWER), "tool-call", "message 2.*tool", "messages"
    ),
    "tool call": BadRow(
        "a.jsonl",
        talk(TURN, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}),
        "tool-call",
        "tool_calls",
        "messages",
    ),
    "ShareGPT without value": BadRow(
        "a.jsonl", shared({"from": "human"}, {"from": "gpt", "value": "x"}), "missing-question", "1", "conversations"
    ),
    "ShareGPT observation": BadRow(
        "a.jsonl",
        shared({"from": "human", "value": "x"}, {"from": "observation", "value": "y"}),
        "tool-call",
        "observation",
        "conversations",
    ),
    "ShareGPT begun by the model": BadRow(
        "a.jsonl",
        shared({"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}),
        "turn-order",
        "assistant, user",
        "conversations",
    ),
    "null in Parquet": BadRow(
        "a.parquet", parquet(GOOD, GOOD | {"output": None}), "missing-answer", "is empty", "output"
    ),
    "numbers in Parquet": BadRow(
        "a.parquet",
        parquet(
            {"messages": [TURN, ANSWER], "task": [1]}, {"messages": [TURN, ANSWER | {"content": "x"}], "task": None}
        ),
        "wrong-type",
        "list",
        "task",
        row=1,
    ),
    "broken line in a gzipped file": BadRow("a.jsonl.gz", gzip.compress(lines(GOOD, "{")), "broken-row", "not JSON"),
    "duplicate line of text": BadRow("a.txt", b"one\ntwo\none\n", "duplicate", "the same as row 1", row=3),
}

FILES: dict[str, BadFile] = {
    "empty": BadFile("a.jsonl", b"", "no rows"),
    "only blank lines": BadFile("a.jsonl", b"\n \n", "no rows"),
    "an empty array": BadFile("a.json", b"[]", "no rows"),
    "empty parquet": BadFile("a.parquet", parquet(GOOD)[:0], "can't be read as parquet"),
    "empty gzip": BadFile("a.jsonl.gz", b"", "no rows"),
    "empty text": BadFile("a.txt", b"\n", "no rows"),
    "header alone": BadFile("a.csv", b"instruction,output\n", "no rows"),
    "no JSON at all": BadFile("a.json", b"", "can't be read as json"),
    "cut array": BadFile("a.json", json.dumps([GOOD]).encode()[:-1], "can't be read as json"),
    "object without rows": BadFile("a.json", b'{"data": []}', "object at the top with no array"),
    "object with two arrays": BadFile("a.json", b'{"a": [{"x": 1}], "b": [{"x": 1}]}', "'a', 'b'"),
    "text at the top": BadFile("a.json", b'"x"', "holds text at the top"),
    "deep JSON": BadFile("a.json", DEEP.encode(), "deep"),
    "an array with a number of 5000 digits": BadFile("a.json", f"[{'1' * 5000}]".encode(), "can't be read as json"),
    "no known column": BadFile("a.jsonl", lines({"foo": "x", "bar": "y"}), "'foo', 'bar'.*instruction"),
    "no answer column": BadFile("a.jsonl", lines({"instruction": "x"}), "'instruction'.*output"),
    "csv without header": BadFile("a.csv", b"a,b\nc,d\n", "'a', 'b'.*instruction"),
    "rows that are no objects": BadFile("a.jsonl", lines([1], [2]), "no columns.*instruction"),
    "nothing but bad rows": BadFile(
        "a.jsonl", lines(GOOD | {"output": ""}, GOOD | {"output": []}), "row 1.*None of the 2"
    ),
    "wrong suffix": BadFile("a.docx", b"x", r"\.docx.*\.jsonl"),
    "no suffix": BadFile("rows", b"x", r"\(none\).*\.jsonl"),
    "zip": BadFile("a.zip", b"PK", r"\.zip.*\.jsonl"),
    "not parquet": BadFile("a.parquet", b"PAR1 no", "can't be read as parquet"),
    "not gzip": BadFile("a.jsonl.gz", lines(GOOD), "can't be read as jsonl"),
    "damaged gzip block": BadFile(
        "a.jsonl.gz", gzip.compress(lines(GOOD))[:10] + b"\xff" * 40, "can't be read as jsonl"
    ),
    "cut gzip": BadFile("a.jsonl.gz", gzip.compress(lines(GOOD) * 500)[:-20], "can't be read as jsonl"),
    "cut UTF-16": BadFile("a.jsonl", lines(GOOD).decode().encode("utf-16")[:-1], "decoded.*UTF-8"),
    "zeros": BadFile("a.jsonl", bytes(1000), "row|decoded|columns"),
    "picture": BadFile("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a.csv"),
}
