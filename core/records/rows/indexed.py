"""Indexed rows: null bits, the sizes of what has no fixed width, then the values (record formats, 4.2).

CHAR and BINARY are as wide as their type, filled with zeros. Readers cut the zeros of a CHAR, which cannot
be told from its own; those of a BINARY are part of it, unlike in Java, whose readers cut them as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from flussd.core.limits import REQUEST_BYTES_MAX
from flussd.core.records.rows import atoms
from flussd.core.records.rows.atoms import (
    DAMAGE,
    LONG,
    MISFIT,
    NS_PER_MS,
    STRUCTS,
    TIMESTAMP,
    BadRow,
    BadValue,
)
from flussd.core.records.rows.nested import Whole, whole_of
from flussd.core.records.types import DataType


@attrs.frozen
class Column:
    """How a column is read from its own bytes, of which it has *width_bytes*; None: as its size says."""

    width_bytes: int | None
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def columns_of(types: tuple[DataType, ...], depth: int = 0) -> tuple[Column, ...]:
    """Return the columns of rows of *types* that lie *depth* levels within others."""
    return tuple(_column(one, depth) for one in types)


def row_of(types: tuple[DataType, ...], depth: int) -> Whole:
    """Return the codec of rows that lie *depth* levels within others."""
    columns = columns_of(types, depth)
    decode = decoder(columns, (True,) * len(columns))
    return Whole(lambda data: tuple(decode(data)), encoder(columns, types))


def decoder(columns: tuple[Column, ...], wanted: tuple[bool, ...]) -> Callable[[bytes], list[Any]]:
    """Return what reads the columns up to the last *wanted* one; the others are None."""
    sizes = struct.Struct(f"<{sum(column.width_bytes is None for column in columns)}i")
    null_bytes, arity, complete = (len(columns) + 7) // 8, len(columns), all(wanted)
    start = null_bytes + sizes.size
    # A fixed width is -1 where the row has the size, so that one tuple a column is unpacked.
    steps = tuple(
        (-1 if column.width_bytes is None else column.width_bytes, column.decode if want else _leave)
        for column, want in zip(columns, wanted, strict=True)
    )[: max((n + 1 for n, want in enumerate(wanted) if want), default=0)]

    def decode(data: bytes) -> list[Any]:
        values: list[Any] = []
        append = values.append
        at, place = start, 0
        nulls = int.from_bytes(data[:null_bytes], "little")
        try:
            given = sizes.unpack_from(data, null_bytes)
            for width_bytes, read in steps:
                if nulls:
                    is_null = nulls & 1
                    nulls >>= 1
                    if is_null:
                        append(None)
                        continue
                if width_bytes < 0:
                    width_bytes = given[place]
                    place += 1
                end = at + width_bytes
                if not at <= end <= len(data):
                    raise BadRow(f"a value of {width_bytes} bytes at {at}: the row ends at {len(data)}")
                append(read(data[at:end]))
                at = end
        except DAMAGE:
            raise BadRow(f"column {len(values)} of {arity}: the row ends at byte {len(data)}") from None
        except BadRow as bad:
            raise BadRow(f"column {len(values)} of {arity}: {bad}") from None
        if complete and at != len(data):
            raise BadRow(f"a row of {arity} columns: expected {at} bytes, got {len(data)}")
        return values

    return decode


def _leave(_data: bytes) -> None:
    """Read nothing: the column is not wanted."""


def encoder(columns: tuple[Column, ...], types: tuple[DataType, ...]) -> Callable[[Sequence[Any]], bytes]:
    """Return what writes rows; *types* are for the texts of errors."""
    writers = tuple((column.width_bytes is None, column.encode) for column in columns)
    null_bytes, arity = (len(types) + 7) // 8, len(types)
    sized_count = sum(sized for sized, _ in writers)
    pack_sizes = struct.Struct(f"<{sized_count}i").pack

    def encode(values: Sequence[Any]) -> bytes:
        if len(values) != arity:
            raise BadValue(f"a row: expected {arity} values, got {len(values)}")
        parts: list[bytes] = []
        sizes: list[int] = []
        nulls, column = 0, 0
        try:
            for sized, write in writers:
                value = values[column]
                if value is None:
                    nulls |= 1 << column
                else:
                    data = write(value)
                    parts.append(data)
                    if sized:
                        sizes.append(len(data))
                column += 1
        except MISFIT as error:
            raise BadValue(f"column {column} ({types[column].name}): {error}") from None
        sizes += [0] * (sized_count - len(sizes))
        return nulls.to_bytes(null_bytes, "little") + pack_sizes(*sizes) + b"".join(parts)

    return encode


# ---- columns -------------------------------------------------------------------------------------


def _column(data_type: DataType, depth: int) -> Column:
    name = data_type.name
    if name in STRUCTS:
        return _fixed(STRUCTS[name])
    if name in atoms.TIMESTAMPS:
        return _MILLISECONDS if atoms.is_compact(data_type) else _TIMESTAMP
    if name == "DECIMAL" and atoms.is_compact(data_type):
        return _fixed(LONG)
    whole = whole_of(data_type, row_of, depth)
    if name in ("CHAR", "BINARY"):
        assert data_type.length is not None
        return _padded(whole, data_type.length, is_text=name == "CHAR")
    return Column(None, whole.decode, whole.encode)


def _fixed(fixed: struct.Struct) -> Column:
    unpack = fixed.unpack
    return Column(fixed.size, lambda data: unpack(data)[0], fixed.pack)


def _padded(whole: Whole, width_bytes: int, *, is_text: bool) -> Column:
    def decode(data: bytes) -> Any:
        return whole.decode(data.rstrip(b"\0") if is_text else data)

    def encode(value: Any) -> bytes:
        data = whole.encode(value)
        # A type may be 2 GiB wide, which no request could carry.
        if len(data) > width_bytes or width_bytes > REQUEST_BYTES_MAX:
            raise BadValue(f"expected up to {min(width_bytes, REQUEST_BYTES_MAX)} bytes, got {len(data)}")
        return data + bytes(width_bytes - len(data))

    return Column(width_bytes, decode, encode)


def _timestamp_bytes(value: int) -> bytes:
    return TIMESTAMP.pack(*divmod(value, NS_PER_MS))


_MILLISECONDS: Final = Column(
    LONG.size,
    lambda data: LONG.unpack(data)[0] * NS_PER_MS,
    lambda value: LONG.pack(value // NS_PER_MS),
)
_TIMESTAMP: Final = Column(
    TIMESTAMP.size, lambda data: atoms.joined(*TIMESTAMP.unpack(data)), _timestamp_bytes
)
