"""Values that are bytes of their own: texts, wide decimals, arrays, maps, rows (record formats, 4.4).

Rows within are of the format of the row around them, so that format hands in how to make their codec.
No count or size is believed before the bytes are there: what is read never takes more memory than a
small multiple of its bytes, for each level of nesting.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.rows import atoms
from flussd.core.records.rows.atoms import CODES, INT, BadRow, BadValue
from flussd.core.records.rows.slots import Slot, slot_of
from flussd.core.records.types import NESTED, NESTING_MAX, DataType

NAN: Final = float("nan")


@attrs.frozen
class Whole:
    """How a value is read from bytes that are it alone, and written to such."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


RowsOf: TypeAlias = Callable[[tuple[DataType, ...], int], Whole]
"""Makes the codec of rows with these columns that lie so deep within others."""

_TEXT: Final = Whole(atoms.read_text, atoms.text_bytes)
_OCTETS: Final = Whole(lambda data: data, atoms.octets)
_DECIMAL: Final = Whole(atoms.read_decimal, atoms.decimal_bytes)


def whole_of(data_type: DataType, rows_of: RowsOf, depth: int) -> Whole:
    """Return the codec of a type without a fixed width; *depth* levels lie around it.

    Raises:
        BadValue: the types are nested too deep.
    """
    if data_type.name in NESTED and depth >= NESTING_MAX:
        raise BadValue(f"types are nested deeper than {NESTING_MAX}")
    if data_type.name in atoms.TEXTS:
        return _TEXT
    if data_type.name in atoms.OCTETS:
        return _OCTETS
    if data_type.name == "DECIMAL":
        return _DECIMAL
    if data_type.name == "ROW":
        return rows_of(tuple(field.data_type for field in data_type.fields), depth + 1)
    if data_type.name == "ARRAY":
        assert data_type.element is not None
        return _array_of(data_type.element, rows_of, depth)
    assert data_type.name == "MAP", data_type.name
    assert data_type.key is not None
    assert data_type.value is not None
    return _map_of(
        _array_of(data_type.key, rows_of, depth),
        _array_of(data_type.value, rows_of, depth),
    )


# ---- arrays --------------------------------------------------------------------------------------


def _array_of(element: DataType, rows_of: RowsOf, depth: int) -> Whole:
    code = CODES.get(element.name)
    if code is not None:
        return _array_of_numbers(code)
    return _array_of_slots(slot_of(element, lambda inner: whole_of(inner, rows_of, depth + 1)))


def _start_bytes(count: int) -> int:
    """Return where the elements begin: behind their count, and a bit for each in words of 32."""
    return 4 + (count + 31) // 32 * 4


def _read_start(data: bytes, element_bytes: int) -> tuple[int, int]:
    """Return how many elements there are and where they begin; all of them lie within *data*."""
    (count,) = INT.unpack_from(data, 0)
    start = _start_bytes(count)
    if count < 0 or start + count * element_bytes > len(data):
        raise BadRow(f"an array of {count} elements in {len(data)} bytes")
    return count, start


def _nulls(data: bytes, count: int) -> list[int]:
    """Return which elements are null."""
    if not any(data[4 : _start_bytes(count)]):
        return []
    return [n for n in range(count) if data[4 + (n >> 3)] >> (n & 7) & 1]


def _started(values: Sequence[Any]) -> bytearray:
    """Return the count and the null bits of an array."""
    count = len(values)
    out = bytearray(_start_bytes(count))
    INT.pack_into(out, 0, count)
    for n, value in enumerate(values):
        if value is None:
            out[4 + (n >> 3)] |= 1 << (n & 7)
    return out


def _array_of_numbers(code: str) -> Whole:
    element_bytes = struct.calcsize(f"<{code}")
    is_float = code in "fd"

    def decode(data: bytes) -> list[Any]:
        count, start = _read_start(data, element_bytes)
        values: list[Any] = list(struct.unpack_from(f"<{count}{code}", data, start))
        for n in _nulls(data, count):
            values[n] = None
        return values

    def encode(values: Sequence[Any]) -> bytes:
        out = _started(values)
        numbers = [0 if value is None else value for value in values]
        if is_float:  # As BinaryArray does: every NaN becomes the one of Java.
            numbers = [number if number == number else NAN for number in numbers]
        out += struct.pack(f"<{len(numbers)}{code}", *numbers)
        return bytes(out) + bytes(-len(out) % 8)

    return Whole(decode, encode)


def _array_of_slots(slot: Slot) -> Whole:
    read, write = slot.read, slot.write

    def decode(data: bytes) -> list[Any]:
        count, start = _read_start(data, 8)
        spent = [0]
        nulls = dict.fromkeys(_nulls(data, count))
        return [None if n in nulls else read(data, start + 8 * n, spent) for n in range(count)]

    def encode(values: Sequence[Any]) -> bytes:
        out = _started(values)
        start = len(out)
        out += bytes(8 * len(values))
        out += bytes(-len(out) % 8)
        for n, value in enumerate(values):
            if value is not None:
                write(out, start + 8 * n, value)
        return bytes(out)

    return Whole(decode, encode)


# ---- maps ----------------------------------------------------------------------------------------


def _map_of(keys: Whole, values: Whole) -> Whole:
    def decode(data: bytes) -> list[tuple[Any, Any]]:
        (keys_bytes,) = INT.unpack_from(data, 0)
        if not 0 <= keys_bytes <= len(data) - 4:
            raise BadRow(f"a map with {keys_bytes} bytes of keys in {len(data)}")
        found = keys.decode(data[4 : 4 + keys_bytes])
        held = values.decode(data[4 + keys_bytes :])
        if len(found) != len(held):
            raise BadRow(f"a map of {len(found)} keys: expected as many values, got {len(held)}")
        if None in found:
            raise BadRow("a map with a null key")
        return list(zip(found, held, strict=True))

    def encode(pairs: Sequence[tuple[Any, Any]]) -> bytes:
        if any(key is None for key, _ in pairs):
            raise BadValue("a map: expected keys that are not null")
        data = keys.encode([key for key, _ in pairs])
        return INT.pack(len(data)) + data + values.encode([value for _, value in pairs])

    return Whole(decode, encode)
