"""Rows to values and back, in every format: a codec is made once for a list of types.

A codec knows no schema ids: rows written with schema k are read with the types of k, and columns that
later schemas added are None. Values are those that `rows.atoms` tells of. Bytes that are no row raise
BadRow, values that are none of their type BadValue, and nothing else is raised for either.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import attrs

from flussd.core.records.rows import aligned, compacted, indexed
from flussd.core.records.types import DataType


class RowFormat(enum.Enum):
    """The formats of rows; the first two by the names that table options have for them."""

    COMPACTED = "COMPACTED"
    INDEXED = "INDEXED"
    ALIGNED = "ALIGNED"


_MODULES: Final = {
    RowFormat.COMPACTED: compacted,
    RowFormat.INDEXED: indexed,
    RowFormat.ALIGNED: aligned,
}


@attrs.frozen(eq=False)
class RowCodec:
    """Reads and writes rows of *types*: see `row_codec`.

    `decode(data)` returns a tuple; `encode(values)` takes one value for each type.
    """

    row_format: RowFormat
    types: tuple[DataType, ...]
    decode: Callable[[bytes | memoryview], tuple[Any, ...]]
    encode: Callable[[Sequence[Any]], bytes]


def row_codec(
    row_format: RowFormat, types: Sequence[DataType], columns: Sequence[int] | None = None
) -> RowCodec:
    """Return the codec of rows of *types*. Raises BadValue when these are nested too deep.

    It reads *columns* alone, if given, in that order: positions from 0; None for those behind the last
    type. Rows that are read as a whole must end where their last column does.
    """
    module, types = _MODULES[row_format], tuple(types)
    wanted = (True,) * len(types)
    pick: Callable[[list[Any]], tuple[Any, ...]] = tuple
    if columns is not None:
        asked = frozenset(columns)
        wanted = tuple(n in asked for n in range(len(types)))
        pick = _picker(tuple(columns), len(types), wanted)
    held = module.columns_of(types)
    read = module.decoder(held, wanted)

    def decode(data: bytes | memoryview) -> tuple[Any, ...]:
        return pick(read(data if isinstance(data, bytes) else bytes(data)))

    return RowCodec(row_format, types, decode, module.encoder(held, types))


def _picker(
    columns: tuple[int, ...], arity: int, wanted: tuple[bool, ...]
) -> Callable[[list[Any]], tuple[Any, ...]]:
    """Return what takes *columns* out of the values up to the last wanted one."""
    assert all(column >= 0 for column in columns), columns
    if columns == tuple(range(len(columns))) and all(wanted[: len(columns)]) and len(columns) <= arity:
        stop = len(columns)
        return lambda values: tuple(values[:stop])
    if len(columns) > 1 and all(column < arity for column in columns):
        return itemgetter(*columns)  # twice as fast as a loop; returns no tuple for a single one
    return lambda values: tuple([values[n] if n < arity else None for n in columns])


def decode_row(
    row_format: RowFormat, types: Sequence[DataType], data: bytes | memoryview
) -> tuple[Any, ...]:
    """Read one row; who reads more makes a codec. Raises BadRow."""
    return row_codec(row_format, types).decode(data)


def encode_row(row_format: RowFormat, types: Sequence[DataType], values: Sequence[Any]) -> bytes:
    """Write one row; who writes more makes a codec. Raises BadValue."""
    return row_codec(row_format, types).encode(values)
