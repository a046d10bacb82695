"""Mutations of files: any bytes, and values that programs and people with bad intent write."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

HOSTILE: tuple[Any, ...] = (
    None,
    "",
    "a\0b",
    "\x1b[2J",
    "x" * 10_000,
    -1,
    0,
    10**20,
    1.5,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [[1]],
    {"a": {"b": "c"}},
    "2001-99-99",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "=cmd|'/c calc'!A0",
    "\ud800",
    "<|im_start|>",
    "(a+)+$",
    {"__class__": "os.system"},
)
PIECES = (
    b"\0",
    b"\xff\xfe",
    b"\xf0\x9f",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"&a [*a]",
    b"!!python/object/apply:os.system [true]",
    b"9" * 5000,
    b"1e999",
    b'"' * 3,
    b"\r\n" * 50,
    b"../" * 20,
    b"\x1b]0;title\x07",
    b"x" * 100_000,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def other_value(value: Any, draw: random.Random) -> Any:
    """A copy with one value replaced, or left out."""
    value = json.loads(json.dumps(value))
    ways = list(places(value))
    if not ways:
        return draw.choice(HOSTILE)
    *above, last = draw.choice(ways)
    holder = value
    for key in above:
        holder = holder[key]
    if draw.random() < 0.2:
        del holder[last]
    else:
        holder[last] = draw.choice(HOSTILE)
    return value


def other_bytes(content: bytes, draw: random.Random) -> bytes:
    """A copy with a few bytes changed, cut, repeated or put in."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((0, 1, 4, 100, 5000)))
        before, middle, after = content[:start], content[start:end], content[end:]
        change = draw.choice(("drop", "cut", "repeat", "put in", "garble"))
        if change == "repeat":
            middle *= draw.choice((2, 50))
        elif change == "put in":
            middle = draw.choice(PIECES)
        elif change == "garble":
            middle = bytes(draw.randrange(256) for _ in middle)
        content = before if change == "cut" else before + (b"" if change == "drop" else middle) + after
    return content


def _of_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    lines[place] = json.dumps(other_value(json.loads(lines[place]), draw)).encode() + b"\n"
    return b"".join(lines)


VALUES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": lambda content, draw: json.dumps(other_value(json.loads(content), draw)).encode(),
    ".yaml": lambda content, draw: yaml.safe_dump(other_value(yaml.safe_load(content), draw)).encode(
        "utf-8", "surrogatepass"
    ),
    ".jsonl": _of_lines,
}


def mutated(name: str, content: bytes, draw: random.Random) -> bytes:
    """Another content of a file of this name."""
    change = VALUES.get(name[name.rfind(".") :])
    return change(content, draw) if change and draw.random() < 0.6 else other_bytes(content, draw)
