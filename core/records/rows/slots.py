"""Slots of eight bytes, in which aligned rows and most arrays have their values (record formats, 4.3).

What does not fit lies behind all slots, and its slot says where. A hostile slot may name any bytes, also
those of others: the reader counts what it takes in *spent*, and refuses to take more than there is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from flussd.core.records.rows import atoms
from flussd.core.records.rows.atoms import LONG, NS_PER_MS, STRUCTS, TWO_INTS, BadRow
from flussd.core.records.types import DataType

if TYPE_CHECKING:
    from flussd.core.records.rows.nested import Whole

SLOT_BYTES: Final = 8
INLINE_BYTES_MAX: Final = 7
"""Texts and bytes of up to this many bytes lie in their slot, whose last byte has the highest bit then."""

Read: TypeAlias = Callable[[bytes, int, list[int]], Any]
Write: TypeAlias = Callable[[bytearray, int, Any], None]


@attrs.frozen
class Slot:
    """How the slot at a position is read, and written into bytes whose end is that of the row so far."""

    read: Read
    write: Write


def slot_of(data_type: DataType, whole_of: Callable[[DataType], Whole]) -> Slot:
    """Return how values of a type lie in slots."""
    fixed = STRUCTS.get(data_type.name)
    if fixed is not None:
        return _fixed(fixed)
    if data_type.name in atoms.TIMESTAMPS:
        return _MILLISECONDS if atoms.is_compact(data_type) else _TIMESTAMP
    if data_type.name == "DECIMAL":
        return _fixed(LONG) if atoms.is_compact(data_type) else _DECIMAL
    whole = whole_of(data_type)
    return _inlined(whole) if data_type.name in atoms.TEXTS + atoms.OCTETS else _apart(whole)


def _fixed(fixed: struct.Struct) -> Slot:
    unpack_from, pack_into = fixed.unpack_from, fixed.pack_into
    return Slot(lambda data, at, _spent: unpack_from(data, at)[0], pack_into)


def _part(data: bytes, offset: int, size_bytes: int, spent: list[int]) -> bytes:
    if offset < 0 or size_bytes < 0 or offset + size_bytes > len(data):
        text = f"a value at {offset} of {size_bytes} bytes: there are {len(data)}"
        raise BadRow(text)
    spent[0] += size_bytes
    if spent[0] > len(data):
        raise BadRow(f"values of {spent[0]} bytes in {len(data)}: they overlap")
    return data[offset : offset + size_bytes]


def _append(out: bytearray, at: int, data: bytes) -> None:
    """Write *data* behind all, padded, and its place into the slot at *at*."""
    TWO_INTS.pack_into(out, at, len(data), len(out))
    out += data
    out += bytes(-len(data) % 8)


# ---- timestamps and decimals ---------------------------------------------------------------------


def _read_milliseconds(data: bytes, at: int, _spent: list[int]) -> int:
    return int(LONG.unpack_from(data, at)[0]) * NS_PER_MS


def _write_milliseconds(out: bytearray, at: int, value: int) -> None:
    LONG.pack_into(out, at, value // NS_PER_MS)


def _read_timestamp(data: bytes, at: int, spent: list[int]) -> int:
    nanoseconds, offset = TWO_INTS.unpack_from(data, at)
    milliseconds = int.from_bytes(_part(data, offset, 8, spent), "little", signed=True)
    return atoms.joined(milliseconds, nanoseconds)


def _write_timestamp(out: bytearray, at: int, value: int) -> None:
    milliseconds, nanoseconds = divmod(value, NS_PER_MS)
    TWO_INTS.pack_into(out, at, nanoseconds, len(out))
    out += LONG.pack(milliseconds)


def _read_decimal(data: bytes, at: int, spent: list[int]) -> int:
    size_bytes, offset = TWO_INTS.unpack_from(data, at)
    return atoms.read_decimal(_part(data, offset, size_bytes, spent))


def _write_decimal(out: bytearray, at: int, value: int) -> None:
    data = atoms.decimal_bytes(value)
    TWO_INTS.pack_into(out, at, len(data), len(out))
    out += data + bytes(atoms.DECIMAL_BYTES_MAX - len(data))


_MILLISECONDS: Final = Slot(_read_milliseconds, _write_milliseconds)
_TIMESTAMP: Final = Slot(_read_timestamp, _write_timestamp)
_DECIMAL: Final = Slot(_read_decimal, _write_decimal)


# ---- what has bytes of its own -------------------------------------------------------------------


def _apart(whole: Whole) -> Slot:
    decode, encode = whole.decode, whole.encode

    def read(data: bytes, at: int, spent: list[int]) -> Any:
        size_bytes, offset = TWO_INTS.unpack_from(data, at)
        return decode(_part(data, offset, size_bytes, spent))

    return Slot(read, lambda out, at, value: _append(out, at, encode(value)))


def _inlined(whole: Whole) -> Slot:
    decode, encode = whole.decode, whole.encode

    def read(data: bytes, at: int, spent: list[int]) -> Any:
        last = data[at + INLINE_BYTES_MAX]
        if not last & 0x80:
            size_bytes, offset = TWO_INTS.unpack_from(data, at)
            return decode(_part(data, offset, size_bytes, spent))
        if last & 0x7F > INLINE_BYTES_MAX:
            raise BadRow(f"a value within its slot: expected up to 7 bytes, got {last & 0x7F}")
        return decode(data[at : at + (last & 0x7F)])

    def write(out: bytearray, at: int, value: Any) -> None:
        data = encode(value)
        if len(data) > INLINE_BYTES_MAX:
            _append(out, at, data)
            return
        out[at : at + len(data)] = data
        out[at + INLINE_BYTES_MAX] = 0x80 | len(data)

    return Slot(read, write)
