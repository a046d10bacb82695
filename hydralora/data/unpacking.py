"""Gzipped files, of which a few megabytes can stand for gigabytes."""

import gzip
import io
import shutil
import tempfile
from typing import IO, Any, BinaryIO

from hydralora.errors import DatasetError

MAX_UNPACKED = 4 * 2**30  # bytes
MAX_RATIO = 200  # of unpacked to packed bytes; texts that repeat a lot reach about 50
FREE = 64 * 2**20  # unpacked bytes up to which any ratio is accepted


def unpacked(name: str, raw: BinaryIO) -> io.BufferedReader:
    """The content of a gzipped file, as a stream that ends with an error once it is too large for what it came from.

    Raises:
        DatasetError: in any read, if it unpacks to more than `MAX_UNPACKED` bytes, or `MAX_RATIO` times its size.
    """
    return io.BufferedReader(_Bounded(name, raw), 2**16)


def in_a_file(stream: IO[bytes]) -> IO[bytes]:
    """A stream's content in a temporary file, for readers that go back and forth."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file


class _Bounded(io.RawIOBase):
    def __init__(self, name: str, raw: BinaryIO) -> None:
        self._name, self._raw = name, raw
        self._gzip = gzip.GzipFile(fileobj=raw)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._gzip.readinto(buffer)
        unpacked, packed = self._gzip.tell(), max(1, self._raw.tell())
        if unpacked > MAX_UNPACKED:
            raise DatasetError(
                f"{self._name}: it unpacks to more than {MAX_UNPACKED >> 30} GiB. Split it into several files."
            )
        if unpacked > FREE and unpacked > MAX_RATIO * packed:
            raise DatasetError(
                f"{self._name}: it unpacks to more than {MAX_RATIO} times its size, as no dataset does. If it "
                "is right, unpack it first."
            )
        return count
