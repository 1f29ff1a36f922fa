"""The message around a record batch of Arrow: a flatbuffer of counts and places before a body of buffers.

Only what an encapsulated record batch has (record formats, 2.1 and 2.4): no schema, no dictionaries. What a
client stored may be anything: bytes that are no such message raise BadRow, nothing else, and nothing is
allocated that the bytes do not hold. Whether places lie within the body is for readers to see.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

from flussd.core.records.rows.atoms import DAMAGE, BadRow

CONTINUATION: Final = b"\xff\xff\xff\xff"
RECORD_BATCH: Final = 3


@attrs.frozen
class Metadata:
    """What the flatbuffer of a record batch says; *codec* is None for raw buffers."""

    row_count: int
    nodes: list[tuple[int, int]]
    buffers: list[tuple[int, int]]
    codec: int | None


def read_message(message: memoryview) -> tuple[Metadata, memoryview]:
    """Return what an encapsulated message says, and its body. Raises BadRow."""
    if len(message) < 8 or bytes(message[:4]) != CONTINUATION:
        raise BadRow("expected an encapsulated Arrow message")
    (metadata_bytes,) = struct.unpack_from("<i", message, 4)
    if not 0 < metadata_bytes <= len(message) - 8:
        raise BadRow(f"metadata of {metadata_bytes} bytes in {len(message)}")
    try:
        metadata = _read_metadata(message[8 : 8 + metadata_bytes])
    except DAMAGE as error:
        raise BadRow(f"metadata: {error}") from error
    return metadata, message[8 + metadata_bytes :]


def _field(data: memoryview, table: int, index: int) -> int:
    """Return where a table's field is, 0 when it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if not 0 <= vtable < len(data):
        raise BadRow(f"vtable at {vtable} of {len(data)}")
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * index >= vtable_bytes:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * index)
    return table + offset if offset else 0


def _follow(data: memoryview, at: int) -> int:
    target: int = at + struct.unpack_from("<I", data, at)[0]
    if not at or target >= len(data):
        raise BadRow(f"a reference from {at} to {target} of {len(data)}")
    return target


def _pairs(data: memoryview, at: int) -> list[tuple[int, int]]:
    """Return a vector of structs of two 64-bit integers."""
    vector = _follow(data, at)
    (count,) = struct.unpack_from("<I", data, vector)
    if vector + 4 + 16 * count > len(data):
        raise BadRow(f"a vector of {count} at {vector} of {len(data)}")
    numbers = struct.unpack_from(f"<{2 * count}q", data, vector + 4)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _read_metadata(data: memoryview) -> Metadata:
    (root,) = struct.unpack_from("<I", data, 0)
    kind_at = _field(data, root, 1)
    if not kind_at or data[kind_at] != RECORD_BATCH:
        raise BadRow("expected a record batch message")
    table = _follow(data, _field(data, root, 2))
    rows_at = _field(data, table, 0)
    row_count = struct.unpack_from("<q", data, rows_at)[0] if rows_at else 0
    nodes, buffers = _pairs(data, _field(data, table, 1)), _pairs(data, _field(data, table, 2))
    codec = None
    compression_at = _field(data, table, 3)
    if compression_at:
        compression = _follow(data, compression_at)
        codec_at = _field(data, compression, 0)
        codec = struct.unpack_from("<b", data, codec_at)[0] if codec_at else 0
    return Metadata(row_count, nodes, buffers, codec)


def record_batch_metadata(
    row_count: int,
    nodes: list[tuple[int, int]],
    buffers: list[tuple[int, int]],
    body_bytes: int,
    codec: int | None,
) -> bytes:
    """Write the flatbuffer of a record batch, encapsulated; the layout of section 2.4."""
    out = bytearray(96 if codec is not None else 80)
    struct.pack_into("<I", out, 0, 16)
    struct.pack_into("<6H", out, 4, 12, 24, 16, 18, 4, 8)  # vtable of Message
    struct.pack_into("<i", out, 16, 12)
    struct.pack_into("<I", out, 20, 56 - 20)
    struct.pack_into("<q", out, 24, body_bytes)
    struct.pack_into("<hB", out, 32, 4, RECORD_BATCH)  # version 5
    struct.pack_into("<6H", out, 40, 12, 24, 8, 4, 16, 20 if codec is not None else 0)
    struct.pack_into("<i", out, 56, 16)
    struct.pack_into("<q", out, 64, row_count)
    if codec is not None:
        struct.pack_into("<I", out, 76, 88 - 76)
        struct.pack_into("<4H", out, 80, 8, 8, 4, 5)  # vtable of BodyCompression
        struct.pack_into("<ibB", out, 88, 8, codec, 0)
    for at, pairs in ((60, nodes), (72, buffers)):
        out += bytes(-(len(out) + 4) % 8)
        struct.pack_into("<I", out, at, len(out) - at)
        out += struct.pack("<I", len(pairs))
        out += struct.pack(f"<{2 * len(pairs)}q", *(number for pair in pairs for number in pair))
    out += bytes(-len(out) % 8)
    return CONTINUATION + struct.pack("<i", len(out)) + bytes(out)
