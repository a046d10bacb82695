"""Many stored events at once as columns, without an object for each: what the curves of a long run are sampled from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 1024  # events of a kind that are looked at together

Kind = Literal["train", "gates"]
CURVES: dict[Kind, tuple[str, ...]] = {
    "train": ("loss", "learning_rate", "gradient_norm", "tokens_per_second"),
    "gates": ("entropy",),  # and one for each head
}

Values = NDArray[np.float64]
Places = NDArray[np.int64]


class UnfitError(ValueError):
    """Some lines are no events of the usual form, or may be none; each must be looked at alone."""


class Columns(NamedTuple):
    """Some lines, and the values of those that are about training and gates.

    Attributes:
        starts: of each line, and the end of the last one: (lines + 1,), bytes.
        lines: of each of the two kinds, the numbers of its lines.
        values: of each of the two kinds, (its lines, curves), NaN where there is none.
        others: the numbers of the other lines.
    """

    starts: Places
    lines: dict[Kind, Places]
    values: dict[Kind, Values]
    others: list[int]


def read_columns(text: bytes, most_heads: int) -> Columns:
    """Read whole lines of JSON.

    Args:
        most_heads: of an event about gates.

    Raises:
        UnfitError: a line is no event, or one of another form than the program writes.
    """
    import pyarrow as pa
    from pyarrow import compute, json

    curves = {name: pa.float64() for names in CURVES.values() for name in names}
    known = {"step": pa.int64(), "time": pa.float64(), "kind": pa.string(), "mean_gate": pa.list_(pa.float64())}
    schema = pa.schema(known | curves)
    options = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = json.read_json(pa.BufferReader(text), parse_options=options)
    except pa.ArrowException as error:
        raise UnfitError from error
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
    columns = {name: table.column(name).combine_chunks() for name in schema.names}
    if len(table) != len(ends) or any(columns[name].null_count for name in ("step", "time", "kind")):
        raise UnfitError
    lines: dict[Kind, Places] = {}
    values: dict[Kind, Values] = {}
    for kind in CURVES:
        chosen = compute.equal(columns["kind"], kind)
        lines[kind] = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
        values[kind] = np.column_stack([_numbers(columns[name].filter(chosen)) for name in CURVES[kind]])
        if kind == "gates":
            values[kind] = np.column_stack([values[kind], _heads(columns["mean_gate"].filter(chosen), most_heads)])
    others = np.ones(len(ends), bool)
    others[np.concatenate(list(lines.values()))] = False
    return Columns(np.concatenate([[0], ends]), lines, values, np.flatnonzero(others).tolist())


def extreme_places(values: Values, first: int, width: int) -> Iterator[int]:
    """The extremes of buckets of this width, as `downsampling.extremes` finds them, by their numbers among the points.

    Args:
        values: (points, curves), NaN where there is none.
        first: the place of the first of these points among all.
    """
    begin, count = 0, len(values)
    while begin < count:
        end = min(count, begin + width - (first + begin) % width)
        yield from sorted(begin + place for place in _extremes(values[begin:end]))
        begin = end


def _extremes(values: Values) -> set[int]:
    unknown = np.isnan(values)
    known = ~unknown.all(0)
    least, greatest = np.where(unknown, np.inf, values).argmin(0), np.where(unknown, -np.inf, values).argmax(0)
    return {*least[known].tolist(), *greatest[known].tolist(), *unknown.argmax(0)[unknown.any(0)].tolist()} or {0}


def _numbers(column: "pa.Array") -> Values:
    numbers: Values = column.to_numpy(zero_copy_only=False)
    if np.isinf(numbers).any():
        raise UnfitError
    return numbers


def _heads(column: "pa.Array", most: int) -> Values:
    """The mean gates, (events, heads)."""
    lengths = np.diff(column.offsets.to_numpy())
    heads = int(lengths[0]) if len(lengths) else 0
    gates: Values = column.flatten().to_numpy(zero_copy_only=False)
    usual = not column.null_count and heads <= most and (lengths == heads).all()
    if not usual or not ((gates >= 0) & (gates <= 1)).all():
        raise UnfitError
    return gates.reshape(len(column), heads)
