"""Records of log batches in formats INDEXED and COMPACTED (record formats, 2.6).

Behind the head, and statistics if any, each record is its length, a byte that tells the change, and the
row. Leaders store such batches as they come and look at no record; this is for changelogs and readers. The
checksum of a batch was looked at before (records/batch.py); what is wrong behind it is BadRow, and nothing
else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from flussd.core.records.batch import (
    APPEND_ONLY,
    HEAD_BYTES,
    NO_SEQUENCE,
    NO_WRITER,
    BatchHead,
    build_batch,
)
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowCodec

_INT: Final = struct.Struct("<i")
_START: Final = struct.Struct("<iB")  # length of what follows it, change


class ChangeType(enum.IntEnum):
    """What a record does; the number is what travels."""

    APPEND_ONLY = 0
    INSERT = 1
    UPDATE_BEFORE = 2
    UPDATE_AFTER = 3
    DELETE = 4

    @property
    def short(self) -> str:
        """Return the short name, as in traces."""
        return ("+A", "+I", "-U", "+U", "-D")[self]


_CHANGES: Final = tuple(ChangeType)


def records_start(batch: memoryview, head: BatchHead) -> int:
    """Return where the records begin in the view of the whole batch of *head*. Raises BadRow."""
    start = head.position + HEAD_BYTES[head.magic]
    if not head.magic:
        return start
    (statistics_bytes,) = _INT.unpack_from(batch, start - _INT.size)
    end = head.position + head.size_bytes
    if not 0 <= statistics_bytes <= end - start:
        raise BadRow(f"statistics of {statistics_bytes} bytes in a batch of {head.size_bytes}")
    return start + int(statistics_bytes)


def row_records(batch: memoryview, head: BatchHead) -> Iterator[tuple[ChangeType, bytes]]:
    """Yield the change and the row of each record of a whole batch in *batch*. Raises BadRow."""
    at, end = records_start(batch, head), head.position + head.size_bytes
    assert end <= len(batch), (end, len(batch))
    for record in range(head.record_count):
        if end - at < _START.size:
            raise BadRow(f"record {record} of {head.record_count}: {end - at} bytes are left")
        length, change = _START.unpack_from(batch, at)
        row, at = at + _START.size, at + _INT.size + length
        if length < 1 or at > end:
            raise BadRow(f"record {record}: expected 1 to {end - row + 1} bytes, got {length}")
        if change >= len(_CHANGES):
            raise BadRow(f"record {record}: expected a change of 0 to 4, got {change}")
        yield _CHANGES[change], bytes(batch[row:at])
    if at != end:
        raise BadRow(f"{end - at} bytes behind {head.record_count} records: expected none")


def read_rows(
    batch: memoryview, head: BatchHead, codec: RowCodec
) -> list[tuple[ChangeType, tuple[Any, ...]]]:
    """Return the changes and values of a whole batch; *codec* is of its schema. Raises BadRow."""
    decode = codec.decode
    return [(change, decode(row)) for change, row in row_records(batch, head)]


def row_payload(records: Iterable[tuple[ChangeType, bytes]]) -> bytes:
    """Return the records of a batch, made of changes and rows."""
    parts = []
    for change, row in records:
        parts.append(_START.pack(1 + len(row), change))
        parts.append(row)
    return b"".join(parts)


def build_row_batch(
    records: Iterable[tuple[ChangeType, bytes]],
    *,
    schema_id: int,
    writer_id: int = NO_WRITER,
    batch_sequence: int = NO_SEQUENCE,
    append_only: bool = False,
) -> bytes:
    """Return a batch of magic 0 with its checksum, as Java makes them, of changes and rows."""
    held = list(records)
    return build_batch(
        row_payload(held),
        record_count=len(held),
        schema_id=schema_id,
        writer_id=writer_id,
        batch_sequence=batch_sequence,
        append_only=append_only,
    )


def is_append_only(head: BatchHead) -> bool:
    """Whether all records of a batch only append."""
    return bool(head.attributes & APPEND_ONLY)
