"""The rows of one primary-key bucket, as its leader holds them: merge, accept, commit, cut, look up.

What is committed, and what the log took beyond it. A put is merged first, which changes nothing; when the
log took the batch that came of it, `accept` must follow in the same step, before another merge; `commit`
and `cut` follow the high watermark and the end of the log. A batch that the log did not take (refused, or a
repeated one) is dropped by whoever merged it. Reads see what is committed and nothing else.

Keys and rows come from clients: what is wrong with them is Refused, and then nothing of the batch counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from flussd.core.kv import changelog
from flussd.core.kv.buffer import Buffer, Buffered, Writes
from flussd.core.kv.ids import Ids
from flussd.core.kv.merge import Changes, walk
from flussd.core.kv.mergers import load, merger_of
from flussd.core.kv.rows import Rows, Snapshot
from flussd.core.kv.rules import SchemaRules, TableRules
from flussd.core.limits import MERGE_SLICE_RECORDS
from flussd.core.records.batch import BatchHead
from flussd.core.records.kv_batch import (
    BadKvBatch,
    KvHead,
    KvRecord,
    build_kv_batch,
    crc_is_right,
    kv_records_in_slices,
    read_kv_head,
)
from flussd.core.records.refusal import Refused
from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.slices import Slices, finished
from flussd.core.wire.errors import ErrorCode


@attrs.frozen(eq=False)
class Merged:
    """What a put would do: *log_batch* for the log, and what the table stores if the log takes it."""

    log_batch: bytes
    record_count: int
    writes: Writes = attrs.field(repr=False)

    @property
    def offset_count(self) -> int:
        """How many offsets the batch takes: one even without records."""
        return max(1, self.record_count)


@attrs.frozen
class MissingRows:
    """A put that inserts keys which are not there: its batch, and its target columns."""

    batch: bytes
    targets: tuple[int, ...]


@attrs.define(eq=False)
class KvTable:
    """The rows of one bucket; *counts_rows* is that of its rules."""

    counts_rows: bool = True
    cut_count: int = 0  # how often the log lost batches: what was being merged then is void
    _rows: Rows = attrs.Factory(Rows)
    _buffer: Buffer = attrs.Factory(Buffer)

    # ---- puts ----------------------------------------------------------------------------------

    def merging(
        self,
        rules: TableRules,
        batch: memoryview,
        targets: tuple[int, ...] = (),
        *,
        overwrite: bool = False,
        ids: Ids | None = None,
        slice_records: int = MERGE_SLICE_RECORDS,
    ) -> Slices[Merged]:
        """Work out what the one batch of a put would do; changes nothing but *ids*.

        Of all that changes a table only `commit` may come between two slices. A merge that is dropped
        leaves nothing behind, but the ids that it drew are lost.

        Raises:
            Refused: with the code and the text of the answer.
            IdsWanted: *ids* has too few; ask again when it has more. It is as it was before.
        """
        head = _head(batch)
        schema = _schema(rules, head)
        made, drawn = Changes(), Ids() if ids is None else ids
        merger = merger_of(rules, targets, made, drawn, overwrite=overwrite)
        try:
            records = yield from kv_records_in_slices(batch, head, slice_records)
        except BadKvBatch as bad:
            raise Refused(ErrorCode.CORRUPT_RECORD_EXCEPTION, str(bad)) from None
        mark = drawn.mark()
        try:
            _check_nulls(schema, records)
            pieces = [records[at : at + slice_records] for at in range(0, len(records), slice_records)]
            for n, piece in enumerate(pieces):
                if n:
                    yield
                load(merger, head.schema_id, piece, self.newest)
                walk(rules, merger, head.schema_id, piece, self.newest, made)
            log_batch = b""
            if not drawn.short_count:
                log_batch = yield from changelog.log_batch(rules, made, head, slice_records)
        except (BadRow, BadValue) as bad:
            drawn.check(mark)
            # Not CORRUPT_RECORD: clients send that again for ever, and nothing would become of it.
            raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, f"a batch of PUT_KV: {bad}") from None
        except Refused:
            # As upstream, whose ids are drawn on the way, and lost.
            drawn.check(mark)
            raise
        drawn.check(mark)
        return Merged(log_batch, len(made.changes), made.writes)

    def accept(self, merged: Merged, base_offset: int) -> None:
        """The log took the batch at *base_offset*: later puts see its rows."""
        self._buffer.add(Buffered(base_offset, base_offset + merged.offset_count, merged.writes))

    def commit(self, high_watermark: int) -> None:
        """Make the rows of the batches that end at or below *high_watermark* visible."""
        for writes in self._buffer.commit(high_watermark):
            self._rows.apply(writes)

    def cut(self, end_offset: int) -> None:
        """The log ends at *end_offset* now: forget the batches behind it."""
        self.cut_count += 1
        self._buffer.cut(end_offset)

    def newest(self, key: bytes) -> bytes | None:
        """Return what is stored under a key, committed or not."""
        return self._buffer.newest(key, self._rows.values)

    def missing_rows(self, rules: TableRules, keys: Sequence[bytes]) -> MissingRows | None:
        """Return the put that inserts those of *keys* that are not there, each once; None: all are.

        Raises:
            Refused: a key is none, or cannot be read back.
        """
        missing = [key for key in dict.fromkeys(keys) if self.newest(key) is None]
        if not missing:
            return None
        records: list[KvRecord] = [(key, _row_of_key(rules, key)) for key in missing]
        return MissingRows(build_kv_batch(records, schema_id=rules.latest_id), rules.key_columns)

    # ---- reads ---------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """Return the committed value of a key."""
        return self._rows.values.get(key)

    def with_prefix(self, prefix: bytes) -> list[bytes]:
        """Return the committed values of the keys that begin with *prefix*, in key order."""
        return self._rows.with_prefix(prefix)

    def first(self, limit: int) -> list[bytes]:
        """Return the first committed values in key order, none if *limit* is not positive."""
        return self._rows.first(limit)

    def rows(self) -> Snapshot:
        """Return the committed rows as they are now; whoever reads them closes them."""
        return self._rows.snapshot()

    @property
    def row_count(self) -> int | None:
        """How many committed rows there are; None when the table does not tell."""
        return len(self._rows.values) if self.counts_rows else None

    # ---- recovery ------------------------------------------------------------------------------

    def replay(self, rules: TableRules, view: memoryview, head: BatchHead) -> None:
        """Fold one whole batch of the changelog into the committed rows; its checksum was looked at.

        Raises:
            BadRow, BadValue: it is no batch of this table; nothing of it counts.
        """
        finished(self.replaying(rules, view, head))

    def replaying(
        self,
        rules: TableRules,
        view: memoryview,
        head: BatchHead,
        slice_records: int = MERGE_SLICE_RECORDS,
    ) -> Slices[None]:
        """Fold as `replay` does, in slices."""
        self._rows.apply((yield from changelog.replayed(rules, view, head, slice_records)))


def _head(batch: memoryview) -> KvHead:
    try:
        head = read_kv_head(batch)
    except BadKvBatch as bad:
        raise Refused(ErrorCode.CORRUPT_RECORD_EXCEPTION, str(bad)) from None
    if not crc_is_right(batch, head):
        text = f"a kv batch of {len(batch)} bytes: its checksum is wrong"
        raise Refused(ErrorCode.CORRUPT_RECORD_EXCEPTION, text)
    return head


def _schema(rules: TableRules, head: KvHead) -> SchemaRules:
    schema = rules.schemas.get(head.schema_id)
    if schema is None:
        text = f"a kv batch: expected a schema id of 1 to {rules.latest_id}, got {head.schema_id}"
        raise Refused(ErrorCode.SCHEMA_NOT_EXIST, text)
    return schema


def _check_nulls(schema: SchemaRules, records: Sequence[KvRecord]) -> None:
    """Refuse nulls in columns that have none, which upstream's readers take for something else."""
    null_bytes, bits = schema.null_bytes, schema.required_bits
    for _, row in records:
        if row is not None and int.from_bytes(row[:null_bytes], "little") & bits:
            nulls = int.from_bytes(row[:null_bytes], "little") & bits
            column = schema.schema.columns[(nulls & -nulls).bit_length() - 1]
            raise BadRow(f"column {column.name}: expected a value, it is NOT NULL, got null")


def _row_of_key(rules: TableRules, key: bytes) -> bytes:
    """Return a row that has the columns of *key*, and nulls."""
    decode = rules.key_encoder.decode
    code = ErrorCode.UNKNOWN_SERVER_ERROR
    if decode is None or rules.is_partitioned:
        raise Refused(code, "lookup with insert: rows cannot be made of the keys of this table")
    try:
        values = dict(zip(rules.stored_key, decode(key), strict=True))
        columns = range(len(rules.latest.codec.types))
        return rules.latest.codec.encode([values.get(n) for n in columns])
    except (BadRow, BadValue) as bad:
        raise Refused(code, f"lookup with insert: {bad}") from None
