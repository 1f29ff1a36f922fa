"""What is known of the bucket of a primary-key table: its changelog, as of any log, and the rows of it.

A put is acknowledged with the end of its batch alone, so batches are known by their last offsets here. What
a batch says is not what was sent: it is what the model of the engines makes of it, and that is judged at
the end, for all batches in their order. What lookups insert has no writer, and is known by where it is.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from flussd.core.records.arrow.batches import read_arrow_rows
from flussd.core.records.batch import BatchHead
from flussd.core.records.row_batch import read_rows
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.runtime_sim.oracles.engines import INSERT, Model, Record
from flussd.runtime_sim.oracles.ids import TableIds
from flussd.runtime_sim.oracles.inserts import Insertion
from flussd.runtime_sim.oracles.ledger import Ledger, Place
from flussd.runtime_sim.oracles.sightings import History, Rows, Sighting
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.batches import Identity, SentBatch
from flussd.runtime_sim.workload.keyed_batches import Key, SentPut
from flussd.runtime_sim.workload.keyed_tables import KeyedSpec

ARROW: Final = "ARROW"
NO_WRITER: Final = -1
"""The writer id, and the sequence, of what lookups insert."""


@attrs.define(eq=False, repr=False)
class KeyedLedger(Ledger):
    """One bucket of a primary-key table; *watermark_offset* is the greatest that its leaders had."""

    spec: KeyedSpec = attrs.field(kw_only=True)
    ids: TableIds = attrs.field(factory=TableIds, kw_only=True)  # of all buckets of the table
    watermark_offset: int = 0
    contents: dict[int, bytes] = attrs.Factory(dict)  # by base offset: whole batches, as read last
    checksums: dict[tuple[int, int], int] = attrs.Factory(dict)  # generation, base offset ->
    sightings: list[Sighting] = attrs.Factory(list)
    inserts: dict[tuple[Key, ...], None] = attrs.Factory(dict)  # the keys of lookups that insert
    insertions: list[Insertion] = attrs.Factory(list)  # what they were told
    tail_offset: int = 0  # the end of the log, as its leader has it
    cut_count: int = 0  # how often that fell

    # ---- the changelog as a log ----------------------------------------------------------------

    def _place(self, _: SentBatch, told_offset: int, /) -> Place:
        return told_offset - 1, told_offset

    def _anchor(self, head: BatchHead) -> int:
        return head.base_offset + head.last_offset_delta

    def identity_of(self, head: BatchHead) -> Identity | None:
        """Return which batch was read; None when nobody sent it."""
        if head.writer_id != NO_WRITER:
            return self.by_sequence.get((head.writer_id, head.batch_sequence))
        if not self.inserts:
            return None
        identity = Identity(NO_WRITER, head.base_offset)
        if identity not in self.sent:
            self.sent[identity] = SentPut(
                identity, NO_WRITER, NO_WRITER, head.schema_id, (), (), 0, self.generation, b"", 0
            )
        return identity

    def _is_of(self, batch: SentBatch, head: BatchHead) -> bool:
        return (batch.writer_id, batch.sequence) == (head.writer_id, head.batch_sequence)

    def logged(self, head: BatchHead, identity: Identity, data: bytes, generation: int) -> None:
        """A reader got the whole batch *data*, which `read` was told of."""
        self.contents[head.base_offset] = data
        if self.spec.id_type:
            self.ids.logged(self.key, head, self._ids(self._said(head)))
        if generation != self.generation and not self.promises_all:
            return  # it may be of a log that is no more
        place = (0 if self.promises_all else generation, head.base_offset)
        known = self.checksums.setdefault(place, head.crc)
        if known != head.crc:
            text = f"{self._name()} at {head.base_offset} {identity}: {known:#010x} is {head.crc:#010x} now"
            raise Violation(Oracle.READS_ARE_STABLE, text)

    def _in_order(self, head: BatchHead, sequences: dict[int, int]) -> None:
        if head.writer_id != NO_WRITER:
            super()._in_order(head, sequences)

    def watermark(self, offset: int) -> None:
        """A leader has this watermark."""
        self.watermark_offset = max(self.watermark_offset, offset)

    def tail(self, end_offset: int) -> None:
        """A leader's log ends here, committed or not."""
        if end_offset < self.tail_offset:
            self.cut_count += 1
            self.insertions = [one for one in self.insertions if one.most_offset <= end_offset]
        self.tail_offset = end_offset

    def gave_up(self, start_offset: int) -> None:
        """Retention gave up what is the only copy of rows."""
        text = f"{self._name()}: all below {start_offset} is given up, and it is the log of rows"
        raise Violation(Oracle.KEPT_LONG_ENOUGH, text)

    def recovered(self, end_offset: int, start_offset: int) -> None:
        """A server read its log, and found it to end and to begin here."""
        generation = self.generation
        super().recovered(end_offset, start_offset)
        if generation != self.generation:
            self.watermark_offset = min(self.watermark_offset, end_offset)

    # ---- the rows ------------------------------------------------------------------------------

    def audited(self, end_offset: int, in_log: dict[int, BatchHead]) -> None:
        """A fresh reader read everything, up to *end_offset*: judge the whole."""
        super().audited(end_offset, in_log)
        history = self._history(in_log)
        for sighting in self.sightings:
            if not self.may_have_been_cut(sighting.generation):
                sighting.judge(self._name(), history)
        for insertion in self.insertions:
            if not self.may_have_been_cut(insertion.generation):
                insertion.judge(self._name(), history)

    def _history(self, in_log: dict[int, BatchHead]) -> History:
        """Fold the changelog; every batch must say what its put does to the rows before it."""
        model = Model(self.spec)
        ends, rows = [0], list[Rows]([{}])
        for offset in sorted(in_log):
            head = in_log[offset]
            said = self._said(head)
            put, expected = self._expected(model, head, said)
            if said != expected:
                text = f"{self._name()} at {offset}, schema {head.schema_id}: {put} on {rows[-1]}"
                told = f"{text}: expected {_told(expected)}, got {_told(said)}"
                raise Violation(Oracle.CHANGELOG_IS_TRUE, told)
            if head.last_offset_delta + 1 != max(1, len(expected)):
                text = f"{self._name()} at {offset}: {len(expected)} records, {head}"
                raise Violation(Oracle.CHANGELOG_IS_TRUE, text)
            ends.append(offset + head.last_offset_delta + 1)
            rows.append(dict(model.rows))
        return History(ends, rows, sorted(self.spec.all_keys, key=self.spec.keys.encode))

    def _expected(
        self, model: Model, head: BatchHead, said: list[Record]
    ) -> tuple[SentPut | str, list[Record]]:
        """Return what a batch tells of, and what it has to say when it says *said*."""
        ids = self._ids(said)
        if head.writer_id == NO_WRITER:
            keys = self._gaps(model, head, said)
            return f"a lookup of {keys}", model.insert(keys, head.schema_id, ids)
        put = self.sent[self.by_sequence[head.writer_id, head.batch_sequence]]
        assert isinstance(put, SentPut)
        return put, model.put(put, head.schema_id, ids)

    def _gaps(self, model: Model, head: BatchHead, said: list[Record]) -> list[Key]:
        """Return the keys that a lookup inserted: all those that it asked for and that have no row."""
        keys: list[Key] = [(row[0], row[1]) for _, row in said]
        for asked in self.inserts if keys and self.spec.takes_inserts else ():
            if keys == [key for key in dict.fromkeys(asked) if key not in model.rows]:
                return keys
        text = f"{self._name()} at {head.base_offset}: no lookup has these gaps: got {_told(said)}"
        raise Violation(Oracle.INSERTS_FILL_GAPS, f"{text}; rows are {model.rows}")

    def _ids(self, said: list[Record]) -> list[Any]:
        """Return the ids of the rows that a batch inserts."""
        place = self.spec.id_place
        return [] if place is None else [row[place] for change, row in said if change is INSERT]

    def _said(self, head: BatchHead) -> list[Record]:
        """Return the records of a batch."""
        view = memoryview(self.contents[head.base_offset])
        types = self.spec.types(head.schema_id)
        head = head._replace(position=0)
        if self.spec.log_format == ARROW:
            return read_arrow_rows(types, view, head)
        return read_rows(view, head, row_codec(RowFormat(self.spec.log_format), types))


def _told(records: list[Record]) -> str:
    return ", ".join([f"{change.short}{row}" for change, row in records]) or "nothing"
