"""Scalars of rows: what they are in Python, and what they are in bytes (record formats, 4.1 to 4.3).

Values, the same in every row format; null is None:

* BOOLEAN a bool; TINYINT to BIGINT an int; FLOAT and DOUBLE a float;
* CHAR and STRING a str: bytes that are no UTF-8 are kept as surrogates, so that what is read can be
  written back as it was; BINARY and BYTES bytes;
* DECIMAL the unscaled int, at the scale of its type;
* DATE days since 1970; TIME milliseconds of the day, whatever its precision;
* TIMESTAMP and TIMESTAMP_LTZ nanoseconds since 1970; finer digits than milliseconds are cut where a type
  has none;
* ARRAY a list, MAP a list of pairs in order, ROW a tuple.

Bytes may be anything: what is wrong with them is BadRow. What a type cannot hold is BadValue. Only the
codecs turn the errors of slices and structs into these, so these functions are called by codecs alone.
"""

from __future__ import annotations

import struct
from typing import Final

from flussd.core.records.types import DataType

COMPACT_PRECISION_MAX: Final = 18
"""Decimals of up to this many digits are one 64-bit integer."""

MILLISECONDS_PRECISION_MAX: Final = 3
"""Timestamps of up to this many digits are milliseconds without a rest."""

DECIMAL_BYTES_MAX: Final = 16
"""The widest decimal has 38 digits, 127 bits."""

NS_PER_MS: Final = 1_000_000


class BadRow(ValueError):  # noqa: N818 - it names what the bytes are
    """Bytes that are not the row that they should be; the text says what is wrong."""


class BadValue(ValueError):  # noqa: N818 - it names what the value is
    """A value that its column cannot hold, or a type that a format does not have."""


DAMAGE: Final = (IndexError, struct.error)
"""What reading beyond the end of bytes raises."""

MISFIT: Final = (struct.error, OverflowError, TypeError, AttributeError, ValueError)
"""What writing a value of another type raises; BadValue is one of them."""

TIMESTAMPS: Final = ("TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE")
TEXTS: Final = ("CHAR", "STRING")
OCTETS: Final = ("BINARY", "BYTES")

CODES: Final = {
    "BOOLEAN": "?",
    "TINYINT": "b",
    "SMALLINT": "h",
    "INTEGER": "i",
    "BIGINT": "q",
    "FLOAT": "f",
    "DOUBLE": "d",
    "DATE": "i",
    "TIME_WITHOUT_TIME_ZONE": "i",
}
"""Types of fixed width, by the letters of struct."""

STRUCTS: Final = {name: struct.Struct(f"<{code}") for name, code in CODES.items()}
LONG: Final = struct.Struct("<q")
INT: Final = struct.Struct("<i")
TWO_INTS: Final = struct.Struct("<ii")
TIMESTAMP: Final = struct.Struct("<qi")  # milliseconds, nanoseconds of the millisecond


def is_compact(data_type: DataType) -> bool:
    """Whether a DECIMAL or a timestamp is one 64-bit integer."""
    assert data_type.precision is not None
    most = COMPACT_PRECISION_MAX if data_type.name == "DECIMAL" else MILLISECONDS_PRECISION_MAX
    return data_type.precision <= most


# ---- variable integers ---------------------------------------------------------------------------

_ONE: Final = tuple(bytes((n,)) for n in range(128))


def read_size(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned 32-bit integer at *at*, and where it ends."""
    value, at = _groups(data, at, 5)
    return value & 0xFFFFFFFF, at


def read_int(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed 32-bit integer at *at*, and where it ends."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, at = _groups(data, at, 5)
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000, at


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed 64-bit integer at *at*, and where it ends."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, at = _groups(data, at, 10)
    return ((value & 0xFFFFFFFFFFFFFFFF) ^ 1 << 63) - (1 << 63), at


def _groups(data: bytes, at: int, count_max: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, at + count_max):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise BadRow(f"an integer at byte {at}: expected up to {count_max} bytes, got more")


def int_bytes(value: int) -> bytes:
    """Return a signed 32-bit integer as `read_int` reads it."""
    if 0 <= value < 0x80:
        return _ONE[value]
    if not -0x80000000 <= value < 0x80000000:
        raise BadValue(f"expected 32 bits, got {value}")
    return _grouped(value & 0xFFFFFFFF)


def long_bytes(value: int) -> bytes:
    """Return a signed 64-bit integer as `read_long` reads it."""
    if 0 <= value < 0x80:
        return _ONE[value]
    if not -(1 << 63) <= value < 1 << 63:
        raise BadValue(f"expected 64 bits, got {value}")
    return _grouped(value & 0xFFFFFFFFFFFFFFFF)


def _grouped(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- texts, bytes, decimals, timestamps ----------------------------------------------------------


def read_text(data: bytes) -> str:
    """Return the text of a column."""
    return data.decode("utf-8", "surrogateescape")


def text_bytes(value: str) -> bytes:
    """Return the bytes of a text."""
    return value.encode("utf-8", "surrogateescape")


def octets(value: bytes) -> bytes:
    """Return *value*, which must be bytes."""
    if not isinstance(value, bytes):
        raise BadValue(f"expected bytes, got {type(value).__name__}")
    return value


def read_decimal(data: bytes) -> int:
    """Return the unscaled value of a decimal that is not compact."""
    if not 0 < len(data) <= DECIMAL_BYTES_MAX:
        raise BadRow(f"a decimal: expected 1 to {DECIMAL_BYTES_MAX} bytes, got {len(data)}")
    return int.from_bytes(data, "big", signed=True)


def decimal_bytes(value: int) -> bytes:
    """Return the fewest bytes, as Java's BigInteger has them: -128 takes one, 128 two."""
    size_bytes = (value if value >= 0 else ~value).bit_length() // 8 + 1
    if size_bytes > DECIMAL_BYTES_MAX:
        raise BadValue(f"a decimal: expected up to {DECIMAL_BYTES_MAX} bytes, got {size_bytes}")
    return value.to_bytes(size_bytes, "big", signed=True)


def joined(milliseconds: int, nanoseconds: int) -> int:
    """Return a timestamp of two parts."""
    if not 0 <= nanoseconds < NS_PER_MS:
        raise BadRow(f"a timestamp: expected nanoseconds below {NS_PER_MS}, got {nanoseconds}")
    return milliseconds * NS_PER_MS + nanoseconds
