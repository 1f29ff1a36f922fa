"""Compacted rows: a null bit a column, then the values that are not null (record formats, 4.1).

The default format of values in primary-key tables; without null bits, also that of most keys. A reader
walks over the columns in order, so leaving out the last ones saves most.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.rows import atoms
from flussd.core.records.rows.atoms import DAMAGE, MISFIT, NS_PER_MS, STRUCTS, BadRow, BadValue
from flussd.core.records.rows.nested import Whole, whole_of
from flussd.core.records.types import DataType

Reader: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
"""Returns the value at a position, and where it ends."""

Writer: TypeAlias = Callable[[Any], bytes]

_VARIABLE_INTS: Final = ("INTEGER", "DATE", "TIME_WITHOUT_TIME_ZONE")


@attrs.frozen
class Column:
    """How the values of a column are read, gone past, and written."""

    read: Reader
    skip: Reader
    write: Writer


def columns_of(types: tuple[DataType, ...], depth: int = 0) -> tuple[Column, ...]:
    """Return the columns of rows of *types* that lie *depth* levels within others."""
    return tuple(column_of(one, depth) for one in types)


def row_of(types: tuple[DataType, ...], depth: int) -> Whole:
    """Return the codec of rows that lie *depth* levels within others."""
    columns = columns_of(types, depth)
    decode = decoder(columns, (True,) * len(columns))
    return Whole(lambda data: tuple(decode(data)), encoder(columns, types))


def decoder(columns: tuple[Column, ...], wanted: tuple[bool, ...]) -> Callable[[bytes], list[Any]]:
    """Return what reads the columns up to the last *wanted* one; the others are None."""
    readers = tuple(
        column.read if want else column.skip for column, want in zip(columns, wanted, strict=True)
    )[: max((n + 1 for n, want in enumerate(wanted) if want), default=0)]
    null_bytes, arity, complete = (len(columns) + 7) // 8, len(columns), all(wanted)

    def decode(data: bytes) -> list[Any]:
        values: list[Any] = []
        append = values.append
        at = null_bytes
        nulls = int.from_bytes(data[:null_bytes], "little")
        try:
            if nulls:
                for read in readers:
                    if nulls & 1:
                        append(None)
                    else:
                        value, at = read(data, at)
                        append(value)
                    nulls >>= 1
            else:
                for read in readers:
                    value, at = read(data, at)
                    append(value)
        except DAMAGE:
            raise BadRow(f"column {len(values)} of {arity}: the row ends at byte {len(data)}") from None
        except BadRow as bad:
            raise BadRow(f"column {len(values)} of {arity}: {bad}") from None
        if at > len(data) or (complete and at != len(data)):
            raise BadRow(f"a row of {arity} columns: expected {at} bytes, got {len(data)}")
        return values

    return decode


def encoder(columns: tuple[Column, ...], types: tuple[DataType, ...]) -> Callable[[Sequence[Any]], bytes]:
    """Return what writes rows; *types* are for the texts of errors."""
    writers = tuple(column.write for column in columns)
    null_bytes, arity = (len(types) + 7) // 8, len(types)
    no_nulls = bytes(null_bytes)

    def encode(values: Sequence[Any]) -> bytes:
        if len(values) != arity:
            raise BadValue(f"a row: expected {arity} values, got {len(values)}")
        parts = [no_nulls]
        nulls, column = 0, 0
        try:
            for write in writers:
                value = values[column]
                if value is None:
                    nulls |= 1 << column
                else:
                    parts.append(write(value))
                column += 1
        except MISFIT as error:
            raise BadValue(f"column {column} ({types[column].name}): {error}") from None
        if nulls:
            parts[0] = nulls.to_bytes(null_bytes, "little")
        return b"".join(parts)

    return encode


# ---- columns -------------------------------------------------------------------------------------


def column_of(data_type: DataType, depth: int = 0) -> Column:
    """Return how values of a type that are not null are read and written."""
    name = data_type.name
    if name in _VARIABLE_INTS:
        return _INTEGER
    if name in STRUCTS and name != "BIGINT":
        return _fixed(STRUCTS[name])
    if name in atoms.TIMESTAMPS:
        return _MILLISECONDS if atoms.is_compact(data_type) else _TIMESTAMP
    if name == "BIGINT" or (name == "DECIMAL" and atoms.is_compact(data_type)):
        return _LONG
    whole = whole_of(data_type, row_of, depth)
    read = _read_text if name in atoms.TEXTS else _whole_reader(whole.decode)
    return Column(read, _skip, _whole_writer(whole.encode))


def _scalar(read: Reader, write: Writer) -> Column:
    return Column(read, lambda data, at: (None, read(data, at)[1]), write)


def _fixed(fixed: struct.Struct) -> Column:
    unpack_from, size_bytes = fixed.unpack_from, fixed.size
    return _scalar(lambda data, at: (unpack_from(data, at)[0], at + size_bytes), fixed.pack)


def _read_milliseconds(data: bytes, at: int) -> tuple[int, int]:
    milliseconds, at = atoms.read_long(data, at)
    return milliseconds * NS_PER_MS, at


def _write_milliseconds(value: int) -> bytes:
    return atoms.long_bytes(value // NS_PER_MS)


def _read_timestamp(data: bytes, at: int) -> tuple[int, int]:
    milliseconds, at = atoms.read_long(data, at)
    nanoseconds, at = atoms.read_int(data, at)
    return atoms.joined(milliseconds, nanoseconds), at


def _write_timestamp(value: int) -> bytes:
    milliseconds, nanoseconds = divmod(value, NS_PER_MS)
    return atoms.long_bytes(milliseconds) + atoms.int_bytes(nanoseconds)


_INTEGER: Final = _scalar(atoms.read_int, atoms.int_bytes)
_LONG: Final = _scalar(atoms.read_long, atoms.long_bytes)
_MILLISECONDS: Final = _scalar(_read_milliseconds, _write_milliseconds)
_TIMESTAMP: Final = _scalar(_read_timestamp, _write_timestamp)


# ---- what has a size -----------------------------------------------------------------------------


def _end(data: bytes, at: int) -> tuple[int, int]:
    """Return where the value begins whose size is at *at*, and where it ends."""
    size_bytes = data[at]
    at += 1
    if size_bytes >= 0x80:
        size_bytes, at = atoms.read_size(data, at - 1)
    if at + size_bytes > len(data):
        raise BadRow(f"a value of {size_bytes} bytes at {at}: the row ends at {len(data)}")
    return at, at + size_bytes


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    at, end = _end(data, at)
    return data[at:end].decode("utf-8", "surrogateescape"), end


def _skip(data: bytes, at: int) -> tuple[None, int]:
    return None, _end(data, at)[1]


def _whole_reader(decode: Callable[[bytes], Any]) -> Reader:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        at, end = _end(data, at)
        return decode(data[at:end]), end

    return read


def _whole_writer(encode: Callable[[Any], bytes]) -> Writer:
    def write(value: Any) -> bytes:
        data = encode(value)
        return atoms.int_bytes(len(data)) + data

    return write
