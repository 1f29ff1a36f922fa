"""Values of primary-key tables: a schema id and a row, alone and in batches (record formats, 3.2).

What the store keeps under a key is what lookups answer, byte for byte. A batch of values answers limit
scans and scans of whole stores; it has no checksum. What is wrong with bytes is BadRow, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from flussd.core.records.rows.atoms import BadRow

_SCHEMA_ID: Final = struct.Struct("<h")
_HEAD: Final = struct.Struct("<ibi")  # length of what follows it, magic, count
_INT: Final = struct.Struct("<i")

SCHEMA_ID_BYTES: Final = _SCHEMA_ID.size
MAGIC: Final = 0


def stored_value(schema_id: int, row: bytes) -> bytes:
    """Return what is stored for a row that was written with this schema."""
    return _SCHEMA_ID.pack(schema_id) + row


def split_value(value: bytes) -> tuple[int, bytes]:
    """Return the schema id and the row of a stored value. Raises BadRow."""
    if len(value) < SCHEMA_ID_BYTES:
        raise BadRow(f"a stored value: expected at least {SCHEMA_ID_BYTES} bytes, got {len(value)}")
    return _SCHEMA_ID.unpack_from(value)[0], value[SCHEMA_ID_BYTES:]


def build_value_batch(values: Iterable[bytes]) -> bytes:
    """Return a batch of stored values."""
    parts, count = [b""], 0
    for value in values:
        parts += (_INT.pack(len(value)), value)
        count += 1
    body = b"".join(parts)
    return _HEAD.pack(_HEAD.size - _INT.size + len(body), MAGIC, count) + body


def read_value_batch(batch: bytes) -> list[bytes]:
    """Return the stored values of a batch. Raises BadRow."""
    if len(batch) < _HEAD.size:
        raise BadRow(f"a batch of values: expected at least {_HEAD.size} bytes, got {len(batch)}")
    length, magic, count = _HEAD.unpack_from(batch)
    if length != len(batch) - _INT.size or magic != MAGIC:
        told = f"length {length} and magic {magic}"
        raise BadRow(f"a batch of values: expected length {len(batch) - _INT.size} and magic 0, got {told}")
    values: list[bytes] = []
    at = _HEAD.size
    while at < len(batch):
        if len(batch) - at < _INT.size:
            raise BadRow(f"value {len(values)}: {len(batch) - at} bytes are left")
        (size_bytes,) = _INT.unpack_from(batch, at)
        at += _INT.size
        if not SCHEMA_ID_BYTES <= size_bytes <= len(batch) - at:
            most = len(batch) - at
            raise BadRow(f"value {len(values)}: expected 2 to {most} bytes, got {size_bytes}")
        values.append(batch[at : at + size_bytes])
        at += size_bytes
    if len(values) != count:
        raise BadRow(f"a batch of values: expected {count}, got {len(values)}")
    return values
