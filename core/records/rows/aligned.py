"""Aligned rows: a byte, null bits, a slot of eight bytes a column, then what did not fit.

Record formats, 4.3. Keys of Paimon are such rows. Those with the bounds of batches are read by
records/aligned.py, which takes single columns out of a view, in the units of comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flussd.core.records.rows.atoms import DAMAGE, MISFIT, BadRow, BadValue
from flussd.core.records.rows.nested import Whole, whole_of
from flussd.core.records.rows.slots import SLOT_BYTES, Slot, slot_of
from flussd.core.records.types import DataType


def null_bytes(arity: int) -> int:
    """Return how many bytes stand before the slots: a byte of their own, and a bit for each column."""
    return (arity + 71) // 64 * 8


def columns_of(types: tuple[DataType, ...], depth: int = 0) -> tuple[Slot, ...]:
    """Return the slots of rows of *types* that lie *depth* levels within others."""
    return tuple(slot_of(one, lambda inner: whole_of(inner, row_of, depth)) for one in types)


def row_of(types: tuple[DataType, ...], depth: int) -> Whole:
    """Return the codec of rows that lie *depth* levels within others."""
    slots = columns_of(types, depth)
    decode = decoder(slots, (True,) * len(slots))
    return Whole(lambda data: tuple(decode(data)), encoder(slots, types))


def decoder(slots: tuple[Slot, ...], wanted: tuple[bool, ...]) -> Callable[[bytes], list[Any]]:
    """Return what reads the *wanted* columns; the others are None."""
    arity, start = len(slots), null_bytes(len(slots))
    columns = tuple(
        (n, 1 << 8 + n, start + SLOT_BYTES * n, slot.read) for n, slot in enumerate(slots) if wanted[n]
    )
    least_bytes = start + SLOT_BYTES * arity

    def decode(data: bytes) -> list[Any]:
        if len(data) < least_bytes:
            raise BadRow(f"a row of {arity} columns: expected {least_bytes} bytes, got {len(data)}")
        values: list[Any] = [None] * arity
        nulls = int.from_bytes(data[:start], "little")
        spent = [0]
        column = 0
        try:
            for column, bit, at, read in columns:
                if not nulls & bit:
                    values[column] = read(data, at, spent)
        except DAMAGE:
            raise BadRow(f"column {column} of {arity}: the row ends at byte {len(data)}") from None
        except BadRow as bad:
            raise BadRow(f"column {column} of {arity}: {bad}") from None
        return values

    return decode


def encoder(slots: tuple[Slot, ...], types: tuple[DataType, ...]) -> Callable[[Sequence[Any]], bytes]:
    """Return what writes rows; *types* are for the texts of errors."""
    arity, start = len(slots), null_bytes(len(slots))
    writers = tuple((start + SLOT_BYTES * n, slot.write) for n, slot in enumerate(slots))
    fixed_bytes = start + SLOT_BYTES * arity

    def encode(values: Sequence[Any]) -> bytes:
        if len(values) != arity:
            raise BadValue(f"a row: expected {arity} values, got {len(values)}")
        out = bytearray(fixed_bytes)
        column = 0
        try:
            for at, write in writers:
                value = values[column]
                if value is None:
                    out[(8 + column) >> 3] |= 1 << (column & 7)
                else:
                    write(out, at, value)
                column += 1
        except MISFIT as error:
            raise BadValue(f"column {column} ({types[column].name}): {error}") from None
        return bytes(out)

    return encode
