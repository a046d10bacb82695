"""Reading Parquet row by row: a small file can stand for more than the memory."""

from collections.abc import Collection, Iterator
from typing import IO, TYPE_CHECKING

from hydralora.data.values import Unreadable
from hydralora.errors import DatasetError, first_line

if TYPE_CHECKING:
    import pyarrow.parquet

BATCH, FEW = 1024, 100  # rows decoded at once; and where all columns are, only to be looked at
AT_ONCE = 32 * 2**20  # bytes of rows that become Python's values at once
MAX_GROUP = 512 * 2**20  # bytes of the columns that are read, in one row group


def parquet_rows(name: str, stream: IO[bytes], wanted: Collection[str] | None = None) -> Iterator[dict[str, object]]:
    """The rows of a Parquet file.

    Args:
        wanted: the columns that are read; None: all.

    Raises:
        DatasetError: a row group is too large to be read at once.
        ValueError: the file is damaged; or OSError.
    """
    import pyarrow as pa

    try:
        yield from _read(name, stream, wanted)
    except pa.ArrowException as error:  # of any kind, such as an IndexError
        raise ValueError(first_line(error)) from error


def _read(name: str, stream: IO[bytes], wanted: Collection[str] | None) -> Iterator[dict[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(stream) as file:
        texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    stream.seek(0)
    # A text that is stored once and named by many rows stays so until its row is read.
    with pyarrow.parquet.ParquetFile(stream, read_dictionary=texts) as file:
        columns = [one for one in file.schema_arrow.names if wanted is None or one in wanted]
        for group in range(file.metadata.num_row_groups if wanted is not None else 0):
            _refuse_large(name, file.metadata.row_group(group), columns)
        for batch in file.iter_batches(batch_size=FEW if wanted is None else BATCH, columns=columns):
            yield from _rows(batch)


def _refuse_large(name: str, group: "pyarrow.parquet.RowGroupMetaData", columns: Collection[str]) -> None:
    if group.total_byte_size <= MAX_GROUP:  # a look at a damaged column's metadata would end the process
        return
    parts = [group.column(i) for i in range(group.num_columns)]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
    if size > MAX_GROUP:
        raise DatasetError(
            f"{name}: a row group of it takes {size / 2**20:.0f} MiB, and at most {MAX_GROUP >> 20} MiB are "
            "read at once. Write it with smaller row groups, or leave out unused columns."
        )


def _rows(batch: "pyarrow.RecordBatch") -> Iterator[dict[str, object]]:
    """A batch's rows, in halves as long as they are large."""
    if batch.num_rows > 1 and batch.nbytes > AT_ONCE:
        half = batch.num_rows // 2
        yield from _rows(batch.slice(0, half))
        yield from _rows(batch.slice(half))
        return
    names = batch.schema.names
    for values in zip(*map(_values, batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _values(column: "pyarrow.Array") -> list[object]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        shared = column.indices.dictionary_encode()  # those that these rows name
        texts = [*_values(column.dictionary.take(shared.dictionary)), None]
        return [texts[-1 if place is None else place] for place in shared.indices.to_pylist()]
    try:
        return list(column.to_pylist())
    except Exception:  # of any kind, by what Python lacks: a year past 9999, an unknown zone, text that is no UTF-8
        return [_value(column, i) for i in range(len(column))]


def _value(column: "pyarrow.Array", row: int) -> object:
    try:
        return column[row].as_py()
    except Exception as error:
        return Unreadable(first_line(error))
