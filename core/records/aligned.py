"""Bounds of batches: single values of aligned rows, and what columns may have in them.

Record formats, 4.3; whole rows of all types are in rows/. Only types that may have statistics are here:
no bytes, no nested ones; values are as they are compared. The bytes may be anything: what is wrong with
them is BadRow, and nothing else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.rows.aligned import null_bytes
from flussd.core.records.rows.atoms import (
    COMPACT_PRECISION_MAX,
    DECIMAL_BYTES_MAX,
    MILLISECONDS_PRECISION_MAX,
    NS_PER_MS,
    BadRow,
    decimal_bytes,
)

Value: TypeAlias = int | float | bytes


class Kind(enum.Enum):
    """The types whose columns have statistics, by upstream's names."""

    BOOLEAN = "BOOLEAN"
    TINYINT = "TINYINT"
    SMALLINT = "SMALLINT"
    INTEGER = "INTEGER"
    BIGINT = "BIGINT"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    CHAR = "CHAR"
    STRING = "STRING"
    DECIMAL = "DECIMAL"
    DATE = "DATE"
    TIME = "TIME_WITHOUT_TIME_ZONE"
    TIMESTAMP = "TIMESTAMP_WITHOUT_TIME_ZONE"
    TIMESTAMP_LTZ = "TIMESTAMP_WITH_LOCAL_TIME_ZONE"


_KINDS: Final = {kind.value: kind for kind in Kind}
_FIXED: Final = {
    Kind.BOOLEAN: struct.Struct("<?"),
    Kind.TINYINT: struct.Struct("<b"),
    Kind.SMALLINT: struct.Struct("<h"),
    Kind.INTEGER: struct.Struct("<i"),
    Kind.BIGINT: struct.Struct("<q"),
    Kind.FLOAT: struct.Struct("<f"),
    Kind.DOUBLE: struct.Struct("<d"),
    Kind.DATE: struct.Struct("<i"),
    Kind.TIME: struct.Struct("<i"),
}
_SLOT_BYTES: Final = 8
_LONG: Final = struct.Struct("<q")
_TWO_INTS: Final = struct.Struct("<ii")


@attrs.frozen
class Domain:
    """What values a column has. Times of day and timestamps are compared in nanoseconds."""

    kind: Kind
    precision: int = 0
    scale: int = 0

    @property
    def unit_ns(self) -> int:
        """What readers of the records get a time in: finer digits, which a writer may give, are cut."""
        return (1_000_000_000, NS_PER_MS, 1000, 1)[(min(self.precision, 9) + 2) // 3]

    @property
    def is_time(self) -> bool:
        """Whether it is a time of day or a timestamp."""
        return self.kind in (Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMP_LTZ)


def domain_of(data_type: Mapping[str, Any]) -> Domain | None:
    """Return the domain of a type of the schema JSON; None for a type without statistics."""
    kind = _KINDS.get(data_type["type"])
    if kind is None:
        return None
    return Domain(kind, data_type.get("precision") or 0, data_type.get("scale") or 0)


@attrs.frozen
class AlignedRow:
    """A row of *arity* columns in *data*, whose values are read one by one."""

    data: memoryview
    arity: int

    def value(self, column: int, domain: Domain) -> Value | None:
        """Return a column's value; None when it is null. Raises BadRow."""
        try:
            if self.data[(column + 8) // 8] >> (column + 8) % 8 & 1:
                return None
            return self._value(null_bytes(self.arity) + _SLOT_BYTES * column, domain)
        except (struct.error, IndexError):
            text = f"a row of {len(self.data)} bytes: too short for column {column} of {self.arity}"
            raise BadRow(text) from None

    def _value(self, slot: int, domain: Domain) -> Value:
        kind = domain.kind
        fixed = _FIXED.get(kind)
        if fixed is not None:
            number: float = fixed.unpack_from(self.data, slot)[0]
            return number * NS_PER_MS if kind is Kind.TIME else number
        if kind in (Kind.STRING, Kind.CHAR):
            return self._text(slot)
        if kind is Kind.DECIMAL:
            if domain.precision <= COMPACT_PRECISION_MAX:
                return int(_LONG.unpack_from(self.data, slot)[0])
            size_bytes, offset = _TWO_INTS.unpack_from(self.data, slot)
            if not 0 < size_bytes <= DECIMAL_BYTES_MAX:
                raise BadRow(f"a decimal: expected 1 to {DECIMAL_BYTES_MAX} bytes, got {size_bytes}")
            return int.from_bytes(self._bytes(offset, size_bytes), "big", signed=True)
        if domain.precision <= MILLISECONDS_PRECISION_MAX:
            return int(_LONG.unpack_from(self.data, slot)[0]) * NS_PER_MS
        nanoseconds, offset = _TWO_INTS.unpack_from(self.data, slot)
        if not 0 <= nanoseconds < NS_PER_MS:
            raise BadRow(f"a timestamp: expected nanoseconds below {NS_PER_MS}, got {nanoseconds}")
        return int.from_bytes(self._bytes(offset, 8), "little", signed=True) * NS_PER_MS + int(nanoseconds)

    def _text(self, slot: int) -> bytes:
        last = self.data[slot + 7]
        if not last & 0x80:
            size_bytes, offset = _TWO_INTS.unpack_from(self.data, slot)
            return self._bytes(offset, size_bytes)
        if last & 0x7F > 7:
            raise BadRow(f"a text within its slot: expected up to 7 bytes, got {last & 0x7F}")
        return bytes(self.data[slot : slot + (last & 0x7F)])

    def _bytes(self, offset: int, size_bytes: int) -> bytes:
        if offset < 0 or size_bytes < 0 or offset + size_bytes > len(self.data):
            text = f"a value at {offset} of {size_bytes} bytes: the row has {len(self.data)}"
            raise BadRow(text)
        return bytes(self.data[offset : offset + size_bytes])


def build_row(values: Sequence[Any], domains: Sequence[Domain]) -> bytes:
    """Return the row of *values* as `AlignedRow` gives them, for tests and simulated clients."""
    nulls = bytearray(null_bytes(len(values)))
    slots: list[bytes] = []
    tail = bytearray()
    for column, (value, domain) in enumerate(zip(values, domains, strict=True)):
        if value is None:
            nulls[(column + 8) // 8] |= 1 << (column + 8) % 8
            slots.append(bytes(_SLOT_BYTES))
            continue
        slot, more = _written(value, domain, len(nulls) + _SLOT_BYTES * len(values) + len(tail))
        slots.append(slot + bytes(_SLOT_BYTES - len(slot)))
        tail += more + bytes(-len(more) % 8)
    return bytes(nulls) + b"".join(slots) + bytes(tail)


def _written(value: Any, domain: Domain, at: int) -> tuple[bytes, bytes]:
    """Return the slot of *value*, and what of it lies at *at* behind the slots."""
    fixed = _FIXED.get(domain.kind)
    if fixed is not None:
        return fixed.pack(value // NS_PER_MS if domain.kind is Kind.TIME else value), b""
    if domain.kind in (Kind.STRING, Kind.CHAR):
        if len(value) < _SLOT_BYTES:
            return value + bytes(7 - len(value)) + bytes((0x80 | len(value),)), b""
        return _TWO_INTS.pack(len(value), at), value
    if domain.kind is Kind.DECIMAL:
        if domain.precision <= COMPACT_PRECISION_MAX:
            return _LONG.pack(value), b""
        data = decimal_bytes(value)
        return _TWO_INTS.pack(len(data), at), data + bytes(DECIMAL_BYTES_MAX - len(data))
    if domain.precision <= MILLISECONDS_PRECISION_MAX:
        return _LONG.pack(value // NS_PER_MS), b""
    return _TWO_INTS.pack(value % NS_PER_MS, at), _LONG.pack(value // NS_PER_MS)
