"""Log batches of rows in format ARROW (record formats, 1.4 and 2.1): what row_batch.py is for row formats.

Behind the head, and statistics if any, stands a byte for each change, unless all records only append, and
then one message of Arrow. The checksum of a batch was looked at before (records/batch.py); what is wrong
behind it is BadRow and nothing else, what a column cannot hold is BadValue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flussd.core.records.arrow.compression import ZSTD_LEVEL_DEFAULT, Compression, presser
from flussd.core.records.arrow.message import read_message, record_batch_metadata
from flussd.core.records.arrow.read import Source, read_columns
from flussd.core.records.arrow.write import write_columns
from flussd.core.records.batch import NO_SEQUENCE, NO_WRITER, BatchHead, build_batch
from flussd.core.records.row_batch import ChangeType, is_append_only, records_start
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.types import DataType
from flussd.core.slices import Slices, finished

ALIGNMENT_BYTES: Final = 8
"""Of buffers in a body, as Java has them."""

SLICE_BYTES: Final = 256 * 1024
"""Buffers that are larger are pressed in a slice of their own: some ms with ZSTD."""

_CHANGES: Final = tuple(ChangeType)


def build_arrow_batch(
    types: Sequence[DataType],
    rows: Sequence[Sequence[Any]],
    changes: Sequence[ChangeType],
    *,
    schema_id: int,
    writer_id: int = NO_WRITER,
    batch_sequence: int = NO_SEQUENCE,
    compression: Compression = Compression.ZSTD,
    zstd_level: int = ZSTD_LEVEL_DEFAULT,
) -> bytes:
    """Return a changelog batch of magic 0 with its checksum; *rows* have a value for each of *types*.

    Each row has its change. Without rows it is a head and nothing else, as Java makes it. Raises BadValue.
    """
    payload = finished(changelog_payload(types, rows, changes, compression, zstd_level))
    return build_batch(
        payload,
        record_count=len(rows),
        schema_id=schema_id,
        writer_id=writer_id,
        batch_sequence=batch_sequence,
        append_only=False,
    )


def changelog_payload(
    types: Sequence[DataType],
    rows: Sequence[Sequence[Any]],
    changes: Sequence[ChangeType],
    compression: Compression,
    zstd_level: int,
) -> Slices[bytes]:
    """Return what stands behind the head of such a batch; a slice for each column. Raises BadValue."""
    assert len(rows) == len(changes), (len(rows), len(changes))
    if not rows:
        return b""
    return bytes(changes) + (yield from _message(types, rows, compression, zstd_level))


def arrow_message(
    types: Sequence[DataType],
    rows: Sequence[Sequence[Any]],
    compression: Compression = Compression.ZSTD,
    zstd_level: int = ZSTD_LEVEL_DEFAULT,
) -> bytes:
    """Return the encapsulated message of *rows*. Raises BadValue."""
    return finished(_message(types, rows, compression, zstd_level))


def _message(
    types: Sequence[DataType], rows: Sequence[Sequence[Any]], compression: Compression, zstd_level: int
) -> Slices[bytes]:
    body, press = (yield from write_columns(types, rows)), presser(compression, zstd_level)
    parts: list[bytes] = []
    places: list[tuple[int, int]] = []
    at = 0
    for buffer in body.buffers:
        if len(buffer) > SLICE_BYTES:
            yield
        data = press(buffer)
        places.append((at, len(data)))
        padding = bytes(-len(data) % ALIGNMENT_BYTES)
        parts += (data, padding)
        at += len(data) + len(padding)
    metadata = record_batch_metadata(len(rows), body.nodes, places, at, compression.codec)
    return b"".join((metadata, *parts))


def read_arrow_rows(
    types: Sequence[DataType], batch: memoryview, head: BatchHead
) -> list[tuple[ChangeType, tuple[Any, ...]]]:
    """Return the changes and values of the whole batch of *head*, of any magic. Raises BadRow.

    *types* are those of its schema, or of a newer one: columns that came later are None.
    """
    return finished(read_arrow_rows_in_slices(types, batch, head))


def read_arrow_rows_in_slices(
    types: Sequence[DataType], batch: memoryview, head: BatchHead
) -> Slices[list[tuple[ChangeType, tuple[Any, ...]]]]:
    """Read as `read_arrow_rows` does; a slice for each column."""
    at, end, count = records_start(batch, head), head.position + head.size_bytes, head.record_count
    assert end <= len(batch), (end, len(batch))
    if not count:
        return []
    changes = [ChangeType.APPEND_ONLY] * count if is_append_only(head) else _changes(batch[at:end], count)
    message = batch[at if is_append_only(head) else at + count : end]
    rows = yield from _rows_of_message(types, message, count)
    return list(zip(changes, rows, strict=True))


def _changes(records: memoryview, count: int) -> list[ChangeType]:
    if count > len(records):
        raise BadRow(f"{count} records: expected a change of each, got {len(records)} bytes")
    found = bytes(records[:count])
    if max(found) >= len(_CHANGES):
        raise BadRow(f"record {found.index(max(found))}: expected a change of 0 to 4, got {max(found)}")
    return [_CHANGES[change] for change in found]


def read_arrow_message(
    types: Sequence[DataType], message: memoryview, row_count: int
) -> list[tuple[Any, ...]]:
    """Return the *row_count* rows of an encapsulated message, as `read_arrow_rows` does."""
    return finished(_rows_of_message(types, message, row_count))


def _rows_of_message(
    types: Sequence[DataType], message: memoryview, row_count: int
) -> Slices[list[tuple[Any, ...]]]:
    metadata, body = read_message(message)
    if metadata.row_count != row_count:
        raise BadRow(f"a message: expected {row_count} rows, got {metadata.row_count}")
    columns = yield from read_columns(types, Source.of(metadata, body))
    if not columns:
        raise BadRow(f"a message of {row_count} rows without columns")
    columns += [[None] * row_count] * (len(types) - len(columns))
    return list(zip(*columns, strict=True))
