"""Changelogs of primary-key tables: what a put did as one log batch, and log batches back into rows.

Rows in a changelog have all columns of the latest schema, whatever schema they are stored with. What does
not fit into the log format is BadRow or BadValue, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from flussd.core.kv.buffer import Writes
from flussd.core.kv.merge import Changes
from flussd.core.kv.rules import LogFormat, SchemaRules, TableRules
from flussd.core.records.arrow.batches import changelog_payload, read_arrow_rows_in_slices
from flussd.core.records.batch import BatchHead, build_batch
from flussd.core.records.kv_batch import KvHead
from flussd.core.records.row_batch import ChangeType, row_payload, row_records
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.values import SCHEMA_ID_BYTES, stored_value
from flussd.core.slices import Slices, in_pieces, whole_unless

_CHANGES: Final = tuple(ChangeType)
_CAME: Final = (ChangeType.INSERT, ChangeType.UPDATE_AFTER)
Record = tuple[ChangeType, tuple[Any, ...]]


def log_batch(rules: TableRules, made: Changes, head: KvHead, slice_records: int) -> Slices[bytes]:
    """Return the one batch that tells of a put, with the writer and the sequence of its *head*.

    Every new row is decoded on the way, so that nothing is stored that nobody can read.
    """
    is_arrow = rules.log_format is LogFormat.ARROW
    payload = yield from (_arrow_payload if is_arrow else _row_payload)(rules, made, slice_records)
    return build_batch(
        payload,
        record_count=len(made.rows),
        schema_id=rules.latest_id,
        writer_id=head.writer_id,
        batch_sequence=head.batch_sequence,
        append_only=False,
    )


def _arrow_payload(rules: TableRules, made: Changes, slice_records: int) -> Slices[bytes]:
    rows = yield from _values(rules, made, slice_records)
    changes = [_CHANGES[change] for change in made.changes]
    types = rules.latest.codec.types
    making = changelog_payload(types, rows, changes, rules.compression, rules.compression_level)
    return (yield from whole_unless(len(rows) > slice_records, making))


def _row_payload(rules: TableRules, made: Changes, slice_records: int) -> Slices[bytes]:
    as_stored = stored_value(rules.latest_id, b"")
    if rules.logs_stored_rows and all(map(as_stored.__eq__, [row[:SCHEMA_ID_BYTES] for row in made.rows])):
        # Nothing is made of the values; this raises if a row that came has none.
        came = zip(made.changes, made.rows, strict=True)
        unread = [row for change, row in came if change in _CAME and row not in made.values]
        yield from in_pieces(unread, slice_records, rules.all_values_of)
        rows = [stored[SCHEMA_ID_BYTES:] for stored in made.rows]
    else:
        assert rules.log_codec is not None
        encode, values = rules.log_codec.encode, (yield from _values(rules, made, slice_records))
        rows = yield from in_pieces(values, slice_records, partial(map, encode))
    return row_payload(zip([_CHANGES[change] for change in made.changes], rows, strict=True))


def _values(rules: TableRules, made: Changes, slice_records: int) -> Slices[list[tuple[Any, ...]]]:
    """Return the values of the logged rows, out of what merging knows already if it does."""
    if not made.values:
        return (yield from in_pieces(made.rows, slice_records, rules.all_values_of))
    known = made.values
    unread = [row for row in made.rows if row not in known]
    rest = iter((yield from in_pieces(unread, slice_records, rules.all_values_of)))
    return [known[row] if row in known else next(rest) for row in made.rows]


def replayed(rules: TableRules, view: memoryview, head: BatchHead, slice_records: int) -> Slices[Writes]:
    """Return the keys that a whole batch of a changelog changes, and what is stored under each after it.

    Rows are stored with the latest schema, as in upstream's recovery. Raises BadRow, and BadValue for rows
    that have no key.
    """
    schema = rules.schemas.get(head.schema_id)
    if schema is None:
        known = f"1 to {rules.latest_id}"
        raise BadRow(f"batch at offset {head.base_offset}: expected schema {known}, got {head.schema_id}")
    if rules.logs_stored_rows and head.schema_id == rules.latest_id:
        return (yield from _replayed_as_they_are(rules, view, head, slice_records))
    records = yield from _records(rules, schema, view, head, slice_records)

    def written(piece: Sequence[Record]) -> Iterator[tuple[bytes, bytes | None]]:
        for change, logged in piece:
            if change is not ChangeType.UPDATE_BEFORE:
                values = logged + schema.missing
                gone = change is ChangeType.DELETE
                yield rules.key_of(values), None if gone else rules.stored_of(values)

    return dict((yield from in_pieces(records, slice_records, written)))


def _replayed_as_they_are(
    rules: TableRules, view: memoryview, head: BatchHead, slice_records: int
) -> Slices[Writes]:
    prefix = stored_value(rules.latest_id, b"")
    kept = [
        (change, prefix + row)
        for change, row in row_records(view, head)
        if change is not ChangeType.UPDATE_BEFORE
    ]

    def written(piece: Sequence[tuple[ChangeType, bytes]]) -> Iterator[tuple[bytes, bytes | None]]:
        # Whole rows are decoded, although the key would do: what cannot be read must not be stored.
        read = rules.latest.many([row for _, row in piece])
        for (change, stored), values in zip(piece, read, strict=True):
            yield rules.key_of(values), None if change is ChangeType.DELETE else stored

    return dict((yield from in_pieces(kept, slice_records, written)))


def _records(
    rules: TableRules, schema: SchemaRules, view: memoryview, head: BatchHead, slice_records: int
) -> Slices[list[Record]]:
    if rules.log_format is LogFormat.ARROW:
        reading = read_arrow_rows_in_slices(schema.codec.types, view, head)
        return (yield from whole_unless(head.record_count > slice_records, reading))
    decode = row_codec(RowFormat(rules.log_format.value), schema.codec.types).decode
    records: list[Record] = []
    for change, row in row_records(view, head):
        records.append((change, decode(row)))
        if not len(records) % slice_records and len(records) < head.record_count:
            yield
    return records
