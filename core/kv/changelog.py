"""Changelogs of primary-key tables: what a put did as one log batch, and log batches back into rows.

Rows in a changelog have all columns of the latest schema, whatever schema they are stored with. What does
not fit into the log format is BadRow or BadValue, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flussd.core.kv.merge import Changes
from flussd.core.kv.rules import LogFormat, SchemaRules, TableRules
from flussd.core.records.arrow.batches import build_arrow_batch, read_arrow_rows
from flussd.core.records.batch import BatchHead
from flussd.core.records.kv_batch import KvHead
from flussd.core.records.row_batch import ChangeType, build_row_batch, row_records
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.values import SCHEMA_ID_BYTES, stored_value

_CHANGES: Final = tuple(ChangeType)
_CAME: Final = (ChangeType.INSERT, ChangeType.UPDATE_AFTER)
Record = tuple[ChangeType, tuple[Any, ...]]


def log_batch(rules: TableRules, made: Changes, head: KvHead) -> bytes:
    """Return the one batch that tells of a put, with the writer and the sequence of its *head*.

    Every new row is decoded on the way, so that nothing is stored that nobody can read.
    """
    if rules.log_format is LogFormat.ARROW:
        return _arrow_batch(rules, made, head)
    return _row_batch(rules, made, head)


def _arrow_batch(rules: TableRules, made: Changes, head: KvHead) -> bytes:
    return build_arrow_batch(
        rules.latest.codec.types,
        _values(rules, made),
        [_CHANGES[change] for change in made.changes],
        schema_id=rules.latest_id,
        writer_id=head.writer_id,
        batch_sequence=head.batch_sequence,
        compression=rules.compression,
        zstd_level=rules.compression_level,
    )


def _row_batch(rules: TableRules, made: Changes, head: KvHead) -> bytes:
    as_stored = stored_value(rules.latest_id, b"")
    if rules.logs_stored_rows and all(map(as_stored.__eq__, [row[:SCHEMA_ID_BYTES] for row in made.rows])):
        # Nothing is made of the values; this raises if a row that came has none.
        came = zip(made.changes, made.rows, strict=True)
        rules.all_values_of([row for change, row in came if change in _CAME and row not in made.values])
        rows = [stored[SCHEMA_ID_BYTES:] for stored in made.rows]
    else:
        assert rules.log_codec is not None
        rows = [rules.log_codec.encode(values) for values in _values(rules, made)]
    return build_row_batch(
        zip([_CHANGES[change] for change in made.changes], rows, strict=True),
        schema_id=rules.latest_id,
        writer_id=head.writer_id,
        batch_sequence=head.batch_sequence,
    )


def _values(rules: TableRules, made: Changes) -> list[tuple[Any, ...]]:
    """Return the values of the logged rows, out of what merging knows already if it does."""
    if not made.values:
        return rules.all_values_of(made.rows)
    known = made.values
    rest = iter(rules.all_values_of([row for row in made.rows if row not in known]))
    return [known[row] if row in known else next(rest) for row in made.rows]


def replayed(rules: TableRules, view: memoryview, head: BatchHead) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the keys that a whole batch of a changelog changes, and what is stored under each after it.

    Rows are stored with the latest schema, as in upstream's recovery. Raises BadRow, and BadValue for rows
    that have no key.
    """
    schema = rules.schemas.get(head.schema_id)
    if schema is None:
        known = f"1 to {rules.latest_id}"
        raise BadRow(f"batch at offset {head.base_offset}: expected schema {known}, got {head.schema_id}")
    is_latest = head.schema_id == rules.latest_id
    if rules.logs_stored_rows and is_latest:
        yield from _replayed_as_they_are(rules, view, head)
        return
    for change, logged in _records(rules, schema, view, head):
        if change is ChangeType.UPDATE_BEFORE:
            continue
        values = logged + schema.missing
        gone = change is ChangeType.DELETE
        yield rules.key_of(values), None if gone else rules.stored_of(values)


def _replayed_as_they_are(
    rules: TableRules, view: memoryview, head: BatchHead
) -> Iterator[tuple[bytes, bytes | None]]:
    prefix = stored_value(rules.latest_id, b"")
    kept = [
        (change, prefix + row)
        for change, row in row_records(view, head)
        if change is not ChangeType.UPDATE_BEFORE
    ]
    # Whole rows are decoded, although the key would do: what cannot be read must not be stored.
    for (change, stored), values in zip(kept, rules.latest.many([row for _, row in kept]), strict=True):
        yield rules.key_of(values), None if change is ChangeType.DELETE else stored


def _records(rules: TableRules, schema: SchemaRules, view: memoryview, head: BatchHead) -> Iterator[Record]:
    if rules.log_format is LogFormat.ARROW:
        yield from read_arrow_rows(schema.codec.types, view, head)
        return
    decode = row_codec(RowFormat(rules.log_format.value), schema.codec.types).decode
    for change, row in row_records(view, head):
        yield change, decode(row)
