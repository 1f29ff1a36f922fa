"""Batches of PUT_KV: a head, then a key for each record, and the row that it gets (record formats, 3.1).

One batch a bucket. A record without a row deletes; rows are in the kv format of the table and of the schema
that the head names. Bytes come from clients: what is wrong with them is BadKvBatch, and nothing else, and
no record counts unless all of them are whole, so that nothing is applied by half.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from crc32c import crc32c

from flussd.core.records.batch import NO_SEQUENCE, NO_WRITER
from flussd.core.records.rows import atoms
from flussd.core.records.rows.atoms import BadRow
from flussd.core.slices import Slices, finished

# length, magic, crc, schema id, attributes, writer id, batch sequence, record count
_HEAD: Final = struct.Struct("<ibIhbqii")
_START: Final = struct.Struct("<ibI")
_COVERED: Final = struct.Struct("<hbqii")
_INT: Final = struct.Struct("<i")

_INT_BYTES: Final = _INT.size
HEAD_BYTES: Final = _HEAD.size
COVERED_FROM: Final = _START.size
MAGIC: Final = 0
ONE_BYTE_END: Final = 0x80
"""Sizes of keys below it take one byte."""

RECORD_BYTES_MIN: Final = 5
"""A length, and the size of an empty key."""

KvRecord: TypeAlias = tuple[bytes, bytes | None]
"""A key, and its row; None deletes."""


class BadKvBatch(ValueError):  # noqa: N818 - it names what the bytes are
    """Bytes that are no batch of PUT_KV; the text says what is wrong."""


class KvHead(NamedTuple):
    """The head of a batch; *size_bytes* is the whole batch."""

    size_bytes: int
    magic: int
    crc: int
    schema_id: int
    attributes: int
    writer_id: int
    batch_sequence: int
    record_count: int


def read_kv_head(batch: memoryview) -> KvHead:
    """Return the head of the one batch that *batch* is.

    Raises:
        BadKvBatch: it is cut, of another magic, or of another length than it says.
    """
    if len(batch) < HEAD_BYTES:
        raise BadKvBatch(f"a kv batch: expected at least {HEAD_BYTES} bytes, got {len(batch)}")
    length, *rest = _HEAD.unpack_from(batch)
    head = KvHead(length + _INT.size, *rest)
    if head.magic != MAGIC:
        raise BadKvBatch(f"a kv batch: expected magic {MAGIC}, got {head.magic}")
    if head.size_bytes != len(batch):
        raise BadKvBatch(f"a kv batch that tells {head.size_bytes} bytes: got {len(batch)}")
    most = (len(batch) - HEAD_BYTES) // RECORD_BYTES_MIN
    if not 0 <= head.record_count <= most:
        text = f"expected 0 to {most} records, got {head.record_count}"
        raise BadKvBatch(f"a kv batch of {len(batch)} bytes: {text}")
    return head


def crc_is_right(batch: memoryview, head: KvHead) -> bool:
    """Whether a batch has its checksum; the Java server does not look at it."""
    return crc32c(batch[COVERED_FROM:]) == head.crc


def kv_records(batch: memoryview, head: KvHead) -> list[KvRecord]:
    """Return all records of the batch with this *head*. Raises BadKvBatch."""
    return finished(kv_records_in_slices(batch, head, head.record_count))


def kv_records_in_slices(batch: memoryview, head: KvHead, slice_records: int) -> Slices[list[KvRecord]]:
    """Read as `kv_records` does, *slice_records* at a time."""
    data = bytes(batch)
    at, records = HEAD_BYTES, list[KvRecord]()
    while len(records) < head.record_count:
        if records:
            yield
        at = _add_records(data, at, head.record_count, slice_records, records)
    if at != len(data):
        raise BadKvBatch(f"{len(data) - at} bytes behind {head.record_count} records: expected none")
    return records


def _add_records(data: bytes, at: int, whole_count: int, count: int, records: list[KvRecord]) -> int:
    """Add up to *count* records that begin at *at*; return where they end."""
    unpack_from, whole_bytes = _INT.unpack_from, len(data)
    for record in range(len(records), min(whole_count, len(records) + count)):
        if whole_bytes - at < RECORD_BYTES_MIN:
            raise BadKvBatch(f"record {record} of {whole_count}: {whole_bytes - at} bytes are left")
        (length,) = unpack_from(data, at)
        start = at + _INT_BYTES
        end = start + length
        if length < 1 or end > whole_bytes:
            raise BadKvBatch(f"record {record}: expected 1 to {whole_bytes - start} bytes, got {length}")
        size_bytes = data[start]
        if size_bytes < ONE_BYTE_END:
            key_from, key_to = start + 1, start + 1 + size_bytes
        else:
            key_from, key_to = _key_within(data, start, record)
        if key_to > end:
            raise BadKvBatch(f"record {record}: a key of {key_to - key_from} bytes in {length}")
        records.append((data[key_from:key_to], data[key_to:end] if key_to < end else None))
        at = end
    return at


def _key_within(data: bytes, at: int, record: int) -> tuple[int, int]:
    try:
        size_bytes, at = atoms.read_size(data, at)
    except (IndexError, BadRow):
        raise BadKvBatch(f"record {record}: the size of its key does not end") from None
    return at, at + size_bytes


def build_kv_batch(
    records: Iterable[KvRecord],
    *,
    schema_id: int,
    writer_id: int = NO_WRITER,
    batch_sequence: int = NO_SEQUENCE,
) -> bytes:
    """Return a batch with its checksum, for clients."""
    parts, count = [b""], 0
    for key, row in records:
        body = atoms.int_bytes(len(key)) + key + (row or b"")
        parts.append(_INT.pack(len(body)) + body)
        count += 1
    parts[0] = _COVERED.pack(schema_id, 0, writer_id, batch_sequence, count)
    covered = b"".join(parts)
    return _START.pack(len(covered) + COVERED_FROM - _INT.size, MAGIC, crc32c(covered)) + covered
