"""What files hold, kept in memory until they change."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from hydralora.files import to_json

T = TypeVar("T")
SETTLED = 2.0  # seconds since a file's last change after which another one surely has another time
MOST_PARSED = 4096  # files


class FileStatus(NamedTuple):
    """What is different whenever a file has changed; `modified` is of its content, `changed` of that or its entry, in
    nanoseconds."""

    inode: int
    size: int
    modified: int
    changed: int

    @property
    def is_settled(self) -> bool:
        """Whether another change would show; two changes within one tick of the clock may not."""
        return time.time() - max(self.modified, self.changed) / 1e9 > SETTLED


def status_of(result: os.stat_result) -> FileStatus:
    return FileStatus(result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)


def file_status(path: Path) -> FileStatus | None:
    """A file's status; None if there is none, or it can't be known."""
    try:
        return status_of(os.stat(path))
    except (OSError, ValueError):
        return None


def checksum(values: object) -> str:
    """sha256 of plain values, by which a file of them can tell that a part of it was changed."""
    return hashlib.sha256(to_json(values).encode()).hexdigest()


class ParsedFiles(Generic[T]):
    """What small files hold, each parsed again only if it has changed; what they hold must not be changed."""

    def __init__(self, parse: Callable[[Path], T]) -> None:
        self._parse = parse
        self._parsed: dict[Path, tuple[FileStatus, T]] = {}

    def get(self, path: Path) -> T:
        """What the file holds; whatever its parser raises is raised each time."""
        status = file_status(path)  # before it is parsed: if it changes meanwhile, it is parsed again the next time
        known = self._parsed.get(path)
        if known and known[0] == status:
            return known[1]
        value = self._parse(path)
        if status and status.is_settled:
            if len(self._parsed) >= MOST_PARSED:
                self._parsed.clear()
            self._parsed[path] = status, value
        return value
