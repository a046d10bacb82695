"""YAML and JSON from anywhere: read, or refused in a short line; never a traceback, never long."""

import json
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hydralora import files
from hydralora.errors import FOUND, found, one_line, printable
from hydralora.files import (
    DEEPEST,
    LARGEST,
    UnreadableError,
    csv_cell,
    parse_json,
    parse_yaml,
    read_yaml,
)

BILLION = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION, "more than 100,000 values"),
        ("a: &a [*a]", "holds itself"),
        ("[" * 5000, f"more than {DEEPEST} deep"),
        ("{a: " * 5000, f"more than {DEEPEST} deep"),
        ("- " * 3000 + "x", f"more than {DEEPEST} deep"),
        ("a: 2001-99-99", "month must be in"),
        (f"a: {'9' * 5000}", "digits"),
        ("? [a]\n: b", "unhashable"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("a: \0", "special characters are not allowed"),
        ("<<: 1\na: 2", "expected a mapping"),
        ("[1, 2]\n---\n[3]", "expected a single document"),
        ("x, " * 1, None),
    ],
    ids=str,
)
def test_yaml_is_read_or_refused_in_a_line(text: str, message: str | None) -> None:
    start = time.monotonic()
    if message is None:
        assert parse_yaml(text) == yaml.safe_load(text)
    else:
        with pytest.raises(UnreadableError, match=message) as raised:
            parse_yaml(text)
        assert len(str(raised.value)) <= FOUND
        assert str(raised.value).isprintable()
    assert time.monotonic() - start < 5


def test_many_values_are_refused_at_once() -> None:
    with pytest.raises(UnreadableError, match="more than 100,000 values"):
        parse_yaml("[" + "1," * 200_000 + "]")


def test_aliases_are_read_like_what_they_name() -> None:
    text = "base: &base {r: 8, tags: [a, b]}\nother: *base\nmore:\n  <<: *base\n  r: 4\n"
    assert parse_yaml(text) == yaml.safe_load(text)


def test_a_file_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as out:
        out.truncate(LARGEST + 1)
    with pytest.raises(UnreadableError, match="larger than 4,194,304 bytes"):
        read_yaml(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableError, match="utf-8"):
        read_yaml(file)
    with pytest.raises(UnreadableError, match="No such file"):
        read_yaml(tmp_path / "absent")
    with pytest.raises(UnreadableError, match="null byte"):
        read_yaml(tmp_path / "a\0b")
    file.write_bytes(b"\xef\xbb\xbfa: 1")  # as some editors begin a file
    assert read_yaml(file) == {"a": 1}


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "nul", '{"a": "\n"}', "9" * 5000], ids=lambda text: text[:6])
def test_json_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UnreadableError) as raised:
        parse_json(text)
    assert len(str(raised.value)) <= FOUND


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_what_was_written_is_read(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value
    assert parse_json(json.dumps(value)) == value


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abc:-[]{}&*!|>?,#'\"\n\t %@`0123<~=.\0é", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for refusal in filter(None, (refused(parse_yaml, text), refused(parse_json, text))):
        assert len(refusal) <= FOUND
        assert refusal.isprintable()


def refused(parse: Callable[[str], Any], text: str) -> str:
    """Why a text is refused; "" if it is read."""
    try:
        parse(text)
    except UnreadableError as error:
        return str(error)
    return ""


def test_what_was_found_is_short_and_has_no_control_characters() -> None:
    assert found("a\x1b[31m") == "'a\\x1b[31m'"
    assert len(found("x" * 10**6)) == FOUND
    assert len(found([0] * 10**4)) == FOUND
    assert one_line("a\n\x1b[31m b") == "a [31m b"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "＠a"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [None, 1, -1.5, True, "a=b", "", "'=1", "é"])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) == value


@given(st.text())
def test_a_terminal_obeys_nothing_in_a_text(text: str) -> None:
    shown = printable(text)
    assert not [letter for letter in shown if unicodedata.category(letter) == "Cc" and letter not in "\n\t"]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert printable(shown) == shown


def test_what_is_shown_of_control_characters() -> None:
    assert printable("a\x1b[2Jb\u202ec\n\td") == "a\\x1b[2Jb\\u202ec\n\td"
    assert printable("naïve ผู้ 漢字 😀") == "naïve ผู้ 漢字 😀"


# Parts of YAML, and characters that are read otherwise, or not at all, in some places.
PLAIN = "a: §b:\n§- §\n§  § §1§0x1F§1e3§.inf§2001-01-01§yes§null§~§\"§'§{§}§[§], §:§-§--- §...§<<: §=§x y§1_000§12:30"
OTHERS = "\\§\\u0041§é§😀§\ufeff§#§&a §*a§!!str §|\n§>\n§? §%§\t§\u2028§@"
PIECES = st.sampled_from([*PLAIN.split("§"), *OTHERS.split("§")])


@example("a: !")
@example("- |#5\n")
@example("{a?: [0, 1]}")
@example('a,"\t:\n')
@example("\n\ufeffa: 1\n")
@given(st.lists(PIECES, max_size=25).map("".join))
@settings(max_examples=400, deadline=None)
def test_the_fast_parser_reads_no_text_otherwise(text: str) -> None:
    def read() -> tuple[str, str]:
        try:
            return "read", repr(parse_yaml(text))
        except UnreadableError as error:
            return "refused", str(error)

    with pytest.MonkeyPatch.context() as patch:
        fast = read()
        patch.setattr(files, "_READ_OTHERWISE", re.compile(""))
        assert read() == fast
