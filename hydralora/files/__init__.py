"""Files: written whole or not at all, and YAML and JSON from anywhere, bounded before anything is made of them.

A few aliases of YAML can stand for billions of values, and a file that only opens brackets makes a parser's stack
overflow: both are small.
"""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, TypeVar

import platformdirs
import yaml
from filelock import FileLock, Timeout

from hydralora.errors import one_line

T = TypeVar("T")
BUILDING = ".building"
LARGEST = 4 * 2**20  # bytes
MOST_VALUES = 100_000
DEEPEST = 40
LONGEST_PATH = 1024  # characters, as the smallest of usual systems allows
LONGEST_NAME = 255  # bytes of a file's or a folder's
LARGEST_OBJECT = 64 * 2**20  # bytes; a large model's index has an entry for each of its weights
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # first characters that make a cell a formula, the wide ones too
WEIGHTS = (".bin", ".safetensors")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them
MODEL_WEIGHTS, MODEL_INDEX = "model.safetensors", "model.safetensors.index.json"  # as transformers names them

# With these characters libyaml, which is ten times as fast, reads some texts otherwise than PyYAML's own parser.
_READ_OTHERWISE = re.compile(r"[?!|>&*#%@`]")
# Beside YAML's own errors: a date that doesn't exist, a number of 5,000 digits, a key that is a list.
_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError, AttributeError)


class UnreadableError(ValueError):
    """A text that isn't YAML or JSON, or is beyond the bounds; its message is one short line."""


def to_json(value: Any) -> str:
    """Strict JSON: NaN and infinities, which JSON can't represent, become null."""
    return json.dumps(_finite(value), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` writes text."""
    write_text(path, to_json(value))


def write_text(path: Path, text: str) -> None:
    """Write text atomically: a reader sees the old file or the new one, even after a power cut."""
    write_texts(path, (text,))


def write_texts(path: Path, texts: Iterable[str]) -> None:
    """Write texts one after the other as `write_text` writes one; they may come from the file itself."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")  # each writer has its own
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.writelines(texts)
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: os.replace(temporary, path))
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def building_folder(parent: Path, name: str | None = None) -> Iterator[Path]:
    """Yield a new empty folder to fill and to move away; what is left of it after the block is removed.

    A lock beside it says that a process fills it. What a killed process has left is removed at the next call.
    """
    place = parent / BUILDING
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent)
    folder = place / (name or secrets.token_hex(8))
    lock = folder.with_name(f"{folder.name}.lock")
    with FileLock(lock):
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # Windows keeps it as long as the lock is held
                lock.unlink()


def remove_leftovers(parent: Path) -> None:
    """Remove the folders in which processes were building when they were killed."""
    for lock in (parent / BUILDING).glob("*.lock"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into; at the end of the block it replaces `folder`.

    An error leaves `folder` unchanged. If `folder` already has files, those of the same name are replaced one by one,
    the weights last; the others stay.
    """
    building = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        building.mkdir(parents=True)
        yield building
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Trainer makes it when it starts
        if not folder.exists():
            os.replace(building, folder)
            return
        for file in sorted(building.iterdir(), key=lambda file: file.suffix in WEIGHTS):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def csv_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula, but for numbers, which stay as they are.

    As OWASP advises (https://owasp.org/www-community/attacks/CSV_Injection), an apostrophe comes before it.
    """
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def file_hash(path: Path | str) -> str:
    """sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The weights of a saved adapter, or those of a saved whole model, which may be in several files; none if they are
    missing or incomplete."""
    if (folder / ADAPTER_WEIGHTS).exists():
        return [folder / ADAPTER_WEIGHTS]
    shards = read_json_object(folder / MODEL_INDEX).get("weight_map", {}).values()
    files = [folder / name for name in sorted(set(shards)) or [MODEL_WEIGHTS]]
    return files if all(file.exists() for file in files) else []


def patiently(action: Callable[[], T]) -> T:
    """Retry an action that Windows refuses while another process has the file open, which lasts milliseconds."""
    for _ in range(8 if sys.platform == "win32" else 0):
        try:
            return action()
        except (PermissionError, UnreadableError) as error:
            if not isinstance(error.__cause__ or error, PermissionError):
                raise
            time.sleep(0.05)
    return action()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cache_root() -> Path:
    """The folder of everything that can be recreated: HYDRALORA_CACHE, else the user's cache folder."""
    return Path(os.environ.get("HYDRALORA_CACHE") or platformdirs.user_cache_path("hydralora"))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or damaged."""
    try:
        value = read_json(path, LARGEST_OBJECT)
    except UnreadableError:
        return {}
    return value if isinstance(value, dict) else {}


def read_yaml(path: Path, largest: int = LARGEST) -> object:
    """The values in a YAML file.

    Raises:
        UnreadableError: it can't be read, isn't UTF-8 or YAML, or is beyond the bounds.
    """
    return parse_yaml(_text(path, largest))


def read_json(path: Path, largest: int = LARGEST) -> object:
    """The values in a JSON file.

    Raises:
        UnreadableError: it can't be read, isn't UTF-8 or JSON, or is beyond the bounds.
    """
    return parse_json(_text(path, largest))


def parse_yaml(text: str) -> object:
    """The values of a YAML text.

    Raises:
        UnreadableError: it isn't YAML, or is beyond the bounds.
    """
    if not _READ_OTHERWISE.search(text) and text.replace("\n", "").isprintable():
        with suppress(*_NOT_YAML):  # PyYAML's own says better what is wrong
            return _constructed(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return _constructed(text, yaml.SafeLoader)
    except UnreadableError:
        raise
    except _NOT_YAML as error:
        raise UnreadableError(one_line(error)) from error


def _constructed(text: str, loader: type[Any]) -> object:
    _check_events(text, loader)
    node = yaml.compose(text, Loader=loader)
    if node is None:
        return None
    _size(node, {}, set())
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_document(node)
    finally:
        constructor.dispose()


def parse_json(text: str) -> object:
    """The values of a JSON text.

    Raises:
        UnreadableError: it isn't JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UnreadableError("it is nested too deeply") from error
    except ValueError as error:
        raise UnreadableError(one_line(error)) from error


def why_no_file_name(text: str) -> str:
    """What keeps a text from naming a file, on any system; "" if nothing does."""
    if len(text) > LONGEST_PATH:
        return f"has {len(text):,} characters, of at most {LONGEST_PATH:,}"
    if wrong := next((letter for letter in text if unicodedata.category(letter) == "Cc"), None):
        return f"has the control character {wrong!r}"
    if any(unicodedata.category(letter) == "Cs" for letter in text):
        return "has half a character"
    if any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in PurePath(text).parts):
        return f"has a part of more than {LONGEST_NAME} bytes"
    return ""


def _text(path: Path, largest: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise UnreadableError(f"it is larger than {largest:,} bytes")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # not UTF-8, or no name of a file
        raise UnreadableError(one_line(error)) from error


def _check_events(text: str, loader: type[Any]) -> None:
    depth = 0
    for values, event in enumerate(yaml.parse(text, Loader=loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise UnreadableError(f"it is nested more than {DEEPEST} deep")
        if values > MOST_VALUES:
            raise UnreadableError(f"it has more than {MOST_VALUES:,} values")


def _size(node: yaml.Node, known: dict[int, int], open_nodes: set[int]) -> int:
    """The values that a node stands for, each alias counted like what it names."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in open_nodes:
        raise UnreadableError("a part of it holds itself (an alias inside its own anchor)")
    open_nodes.add(id(node))
    size = 1
    for child in _children(node):
        size += _size(child, known, open_nodes)
        if size > MOST_VALUES:
            raise UnreadableError(f"with its aliases (*name) it has more than {MOST_VALUES:,} values")
    open_nodes.discard(id(node))
    known[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return []
