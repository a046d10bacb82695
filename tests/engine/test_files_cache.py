"""What files hold, read again whenever they may have changed, and only then."""

import json
import os
import time
from pathlib import Path

import pytest

from hydralora.files import cache as file_cache
from hydralora.files import write_json
from hydralora.files.cache import ParsedFiles


class Parser:
    """Counts how often it parses."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, path: Path) -> object:
        self.times += 1
        return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged at once."""
    monkeypatch.setattr(file_cache, "SETTLED", -1.0)


def test_what_was_just_written_is_read_again_however_fast_it_changes(tmp_path: Path) -> None:
    files = ParsedFiles(Parser())
    for i in range(60):
        write_json(tmp_path / "a.json", i % 10)  # the same size, and perhaps the same tick of the clock and inode
        assert files.get(tmp_path / "a.json") == i % 10


def test_a_file_that_has_just_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_cache, "SETTLED", 600.0)
    parser, path = Parser(), tmp_path / "a.json"
    write_json(path, 1)
    files = ParsedFiles(parser)
    assert [files.get(path), files.get(path), parser.times] == [1, 1, 2]


@pytest.mark.usefixtures("settled")
def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    parser, path = Parser(), tmp_path / "a.json"
    files = ParsedFiles(parser)
    write_json(path, [1])
    assert [files.get(path), files.get(path), parser.times] == [[1], [1], 1]
    write_json(path, [2])
    assert [files.get(path), files.get(path), parser.times] == [[2], [2], 2]
    status = path.stat()
    time.sleep(0.02)
    path.write_text("[3]", encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time, in place
    assert [files.get(path), parser.times] == [[3], 3]


@pytest.mark.usefixtures("settled")
def test_errors_are_raised_each_time_and_not_kept(tmp_path: Path) -> None:
    files, path = ParsedFiles(Parser()), tmp_path / "a.json"
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            files.get(path)
    path.write_text("{", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ValueError, match="Expecting"):
            files.get(path)
    write_json(path, 1)
    assert files.get(path) == 1


@pytest.mark.usefixtures("settled")
def test_it_holds_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_cache, "MOST_PARSED", 3)
    files = ParsedFiles(Parser())
    for i in range(8):
        write_json(tmp_path / f"{i}.json", i)
        assert files.get(tmp_path / f"{i}.json") == i
        assert len(files._parsed) <= 3
