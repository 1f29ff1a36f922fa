"""Keys of rows in bytes: what is hashed into a bucket, and what a row is stored under.

Record formats, 5.1. The lake of a table decides how its bucket key is written, and, with the version of its
primary-key format, how its primary key is. Servers never make the key of a request anew, they believe the
client; they need these when they rebuild a store from its changelog, and to read a key whose row is
missing. Key columns are never null. Values are those of rows.atoms; what a key cannot hold is BadValue,
bytes that are no key are BadRow.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from flussd.core.records.options import option_value
from flussd.core.records.rows import atoms, compacted
from flussd.core.records.rows.atoms import (
    DAMAGE,
    LONG,
    MISFIT,
    NS_PER_MS,
    STRUCTS,
    TIMESTAMPS,
    BadRow,
    BadValue,
)
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType


class LakeFormat(enum.Enum):
    """The lakes that a table may be written to, by the values of `table.datalake.format`."""

    PAIMON = "PAIMON"
    ICEBERG = "ICEBERG"
    HUDI = "HUDI"
    LANCE = "LANCE"


KEY_FORMAT_OF_NEW_TABLES: Final = 2
"""The value of `table.kv.format-version` that coordinators give new primary-key tables."""


def lake_format_of(properties: Mapping[str, str]) -> LakeFormat | None:
    """Return the lake format that the options of a valid table name; None for Fluss's own."""
    name = option_value(properties, "table.datalake.format", default="")
    return LakeFormat(name) if name else None


@attrs.frozen(eq=False)
class KeyEncoder:
    """Writes keys of *types*; *decode* is None where keys cannot be read back."""

    types: tuple[DataType, ...]
    encode: Callable[[Sequence[Any]], bytes]
    decode: Callable[[bytes], tuple[Any, ...]] | None


def key_encoder(lake: LakeFormat | None, types: Sequence[DataType]) -> KeyEncoder:
    """Return what writes key columns of these types for a lake; bucket keys are always written so.

    Raises:
        BadValue: the lake has no keys of these types.
    """
    kinds = tuple(types)
    match lake:
        case LakeFormat.PAIMON:
            return _paimon(kinds)
        case LakeFormat.ICEBERG:
            return KeyEncoder(kinds, _checked(kinds, _iceberg(kinds)), _iceberg_reader(kinds[0]))
        case LakeFormat.HUDI:
            return KeyEncoder(kinds, _checked(kinds, _hudi(kinds), nulls=True), None)
        case _:
            return _compacted(kinds)


def primary_key_encoder(
    lake: LakeFormat | None,
    types: Sequence[DataType],
    *,
    format_version: int | None,
    is_bucket_key: bool,
) -> KeyEncoder:
    """Return what writes primary keys, without their partition columns.

    *format_version* is `table.kv.format-version`, None if the table has none; *is_bucket_key* tells whether
    the bucket key has the same columns in the same order. With version 2 and a shorter bucket key, keys are
    compacted: then those of one prefix lie side by side.
    """
    by_lake = format_version is None or format_version < KEY_FORMAT_OF_NEW_TABLES or is_bucket_key
    return key_encoder(lake if by_lake and lake is not LakeFormat.HUDI else None, types)


def _checked(
    types: tuple[DataType, ...], encode: Callable[[Sequence[Any]], bytes], *, nulls: bool = False
) -> Callable[[Sequence[Any]], bytes]:
    """Return *encode* with exact errors."""

    def checked(values: Sequence[Any]) -> bytes:
        if len(values) != len(types):
            raise BadValue(f"a key: expected {len(types)} values, got {len(values)}")
        if not nulls and any(value is None for value in values):
            raise BadValue(f"a key: expected no nulls, got one in column {list(values).index(None)}")
        try:
            return encode(values)
        except MISFIT as error:
            raise BadValue(f"a key of {', '.join(one.name for one in types)}: {error}") from None

    return checked


# ---- Fluss, Lance and Paimon ---------------------------------------------------------------------


def _compacted(types: tuple[DataType, ...]) -> KeyEncoder:
    """Compacted values back to back: a key that has fewer columns is a prefix of one with more."""
    columns = compacted.columns_of(types)

    def encode(values: Sequence[Any]) -> bytes:
        return b"".join([column.write(value) for column, value in zip(columns, values, strict=True)])

    def decode(data: bytes) -> tuple[Any, ...]:
        at, values = 0, []
        try:
            for column in columns:
                value, at = column.read(data, at)
                values.append(value)
        except DAMAGE:
            raise BadRow(f"column {len(values)} of a key: it ends at byte {len(data)}") from None
        if at != len(data):
            raise BadRow(f"a key of {len(columns)} columns: expected {at} bytes, got {len(data)}")
        return tuple(values)

    return KeyEncoder(types, _checked(types, encode), decode)


def _paimon(types: tuple[DataType, ...]) -> KeyEncoder:
    codec = row_codec(RowFormat.ALIGNED, types)
    return KeyEncoder(types, _checked(types, codec.encode), codec.decode)


# ---- Iceberg -------------------------------------------------------------------------------------


def _iceberg(types: tuple[DataType, ...]) -> Callable[[Sequence[Any]], bytes]:
    if len(types) != 1:
        raise BadValue(f"keys of Iceberg: expected one column, got {len(types)}")
    write = _iceberg_writer(types[0])
    return lambda values: write(values[0])


def _iceberg_writer(data_type: DataType) -> Callable[[Any], bytes]:
    name = data_type.name
    if name in ("INTEGER", "DATE", "BIGINT"):
        narrow = STRUCTS[name]
        # The narrow one tells whether the value is one of its type.
        return lambda value: LONG.pack(narrow.unpack(narrow.pack(value))[0])
    if name == "TIME_WITHOUT_TIME_ZONE":
        return lambda value: LONG.pack(value * 1000)
    if name == TIMESTAMPS[0]:
        finest_ns = NS_PER_MS if atoms.is_compact(data_type) else 1
        return lambda value: LONG.pack(value // finest_ns * finest_ns // 1000)
    if name in ("FLOAT", "DOUBLE"):
        return STRUCTS[name].pack
    if name == "DECIMAL":
        return atoms.decimal_bytes
    if name in atoms.TEXTS:
        return atoms.text_bytes
    if name in atoms.OCTETS:
        return atoms.octets
    raise BadValue(f"keys of Iceberg: expected a type that it hashes, got {name}")


def _iceberg_reader(data_type: DataType) -> Callable[[bytes], tuple[Any, ...]]:
    """Return what reads keys of Iceberg; timestamps come back without what the key did not hold."""
    name = data_type.name
    if name in atoms.TEXTS:
        return lambda data: (atoms.read_text(data),)
    if name in atoms.OCTETS:
        return lambda data: (data,)
    if name == "DECIMAL":
        return lambda data: (atoms.read_decimal(data),)
    fixed = STRUCTS[name] if name in ("FLOAT", "DOUBLE") else LONG

    def decode(data: bytes) -> tuple[Any, ...]:
        if len(data) != fixed.size:
            raise BadRow(f"a key of {name}: expected {fixed.size} bytes, got {len(data)}")
        (value,) = fixed.unpack(data)
        if name == "TIME_WITHOUT_TIME_ZONE":
            return (value // 1000,)
        return (value * 1000,) if name == TIMESTAMPS[0] else (value,)

    return decode


# ---- Hudi ----------------------------------------------------------------------------------------

_NULL: Final = "__null__"
_EMPTY: Final = "__empty__"
_AS_TEXT: Final[dict[str, Callable[[Any], str]]] = {
    "BOOLEAN": lambda value: "true" if value else "false",
    "TINYINT": str,
    "SMALLINT": str,
    "INTEGER": str,
    "BIGINT": str,
    "CHAR": str,
    "STRING": str,
}


def _hudi(types: tuple[DataType, ...]) -> Callable[[Sequence[Any]], bytes]:
    """Return what writes the hash of the values as texts, as a list of texts has it in Java.

    Only types whose text is beyond doubt are taken: not those of times, floats and decimals.
    """
    for data_type in types:
        if data_type.name not in _AS_TEXT:
            raise BadValue(f"keys of Hudi: expected integers, booleans or texts, got {data_type.name}")
    writers = tuple(_AS_TEXT[data_type.name] for data_type in types)

    def encode(values: Sequence[Any]) -> bytes:
        texts = [
            None if value is None else write(value) for write, value in zip(writers, values, strict=True)
        ]
        if len(texts) == 1:
            texts = [_NULL if text is None else text for text in texts]
        for text in texts if len(texts) > 1 else ():
            if text is not None and ("," in text or text in (_NULL, _EMPTY)):
                raise BadValue(f"expected a text that Hudi's lists may have, got {text[:100]!r}")
        code = 1
        for text in texts:
            code = 31 * code + (0 if text is None else _java_hash(text))
        return struct.pack(">I", code & 0xFFFFFFFF)

    return encode


def _java_hash(text: str) -> int:
    """Return String.hashCode of Java, unsigned."""
    data = text.encode("utf-16-le", "surrogatepass")
    code = 0
    for (unit,) in struct.iter_unpack("<H", data):
        code = (31 * code + unit) & 0xFFFFFFFF
    return code
