"""What is known of each bucket's log, from acknowledgements, reads and recoveries; judged as it comes in.

Acknowledgements and reads are what clients saw, and nothing else. Recoveries are watched from outside the
machine: a log that ends before what was known lost it, and whether it may depends on the durability mode,
on whether the power went, and on what the server itself believed to be durable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from flussd.core.records.batch import BatchHead
from flussd.core.replica.events import BucketKey
from flussd.core.replica.stored import Durability
from flussd.runtime_sim.oracles.probes import Probe, judge_probes
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.batches import Identity, SentBatch
from flussd.runtime_sim.workload.rows import Values

Place: TypeAlias = tuple[int, int]  # offsets [start, end)


@attrs.define(eq=False, repr=False)
class Entry:
    """A batch known to be in the log."""

    start_offset: int
    end_offset: int
    identity: Identity
    crc: int
    acked: bool = False  # with acks=-1
    acked_weakly: bool = False  # with acks 1 or 0
    was_read: bool = False
    commit_ms: int = -1  # its commit time, once it was read


@attrs.define(eq=False, repr=False)
class Ledger:
    """One bucket; *generation* grows whenever the log may have lost what nobody was promised."""

    key: BucketKey
    durability: Durability
    sent: dict[Identity, SentBatch] = attrs.Factory(dict)
    entries: dict[int, Entry] = attrs.Factory(dict)  # by start offset
    places: dict[Identity, int] = attrs.Factory(dict)
    generation: int = 0
    floor_offset: int = 0  # what a server believed to be durable
    power_lost: bool = False  # since the last recovery
    start_offset: int = 0  # below, retention may have given up what is old
    end_offset: int = 0  # the greatest that is known
    committed_offset: int = 0  # up to where the log is committed, as far as clients know
    ack_count: int = 0
    promised: dict[Identity, int] = attrs.Factory(dict)  # acknowledged without an offset -> generation
    by_sequence: dict[tuple[int, int], Identity] = attrs.Factory(dict)  # writer id and sequence ->
    sent_count: int = 0  # of rows
    is_dropped: bool = False  # its bucket is erased, in part perhaps
    probes: list[Probe] = attrs.Factory(list)

    @property
    def promises_all(self) -> bool:
        """Whether acks=-1 outlives a power loss."""
        return self.durability is Durability.GROUP_FSYNC

    def may_have_been_cut(self, generation: int) -> bool:
        """Whether the log may have lost, since *generation*, what readers had seen."""
        return generation != self.generation and not self.promises_all

    # ---- what clients see ----------------------------------------------------------------------

    def will_send(self, batch: SentBatch) -> None:
        """A writer made *batch*, and will send it."""
        self.sent[batch.identity] = batch
        self.by_sequence[batch.writer_id, batch.sequence] = batch.identity
        self.sent_count += batch.record_count

    def acked(self, batch: SentBatch, start_offset: int, acks: int, generation: int) -> None:
        """A server acknowledged *batch*, which was sent when the ledger was at *generation*."""
        self.ack_count += 1
        if generation != self.generation and not (self.promises_all and acks == -1):
            return  # the answer may be older than a loss
        entry = self._known(*self._place(batch, start_offset), batch.identity, batch.crc)
        if acks == -1:
            entry.acked = True
            self.committed_offset = max(self.committed_offset, entry.end_offset)
        else:
            entry.acked_weakly = True

    def acked_behind(self, batch: SentBatch, acks: int, generation: int) -> None:
        """A server acknowledged *batch* behind another one, at an offset that it did not tell."""
        self.ack_count += 1
        if acks == -1:
            self.promised[batch.identity] = generation

    def read(self, head: BatchHead, identity: Identity, generation: int, high_watermark: int) -> None:
        """A reader got a batch, by a fetch that was sent when the ledger was at *generation*."""
        end_offset = head.base_offset + head.last_offset_delta + 1
        what = f"{self._name()} [{head.base_offset}, {end_offset}) {identity}"
        if end_offset > high_watermark:
            raise Violation(Oracle.BELOW_WATERMARK, f"{what}: the high watermark is {high_watermark}")
        batch = self.sent.get(identity)
        if batch is None or not self._is_of(batch, head):
            raise Violation(Oracle.NOTHING_INVENTED, f"{what}: sent was {batch}, got {head}")
        if generation == self.generation or self.promises_all:
            entry = self._known(self._anchor(head), end_offset, identity, batch.crc)
            entry.was_read = True
            self.committed_offset = max(self.committed_offset, end_offset)
            if entry.commit_ms not in (-1, head.commit_timestamp_ms):
                text = f"{what}: was committed at {entry.commit_ms}, got {head.commit_timestamp_ms}"
                raise Violation(Oracle.READS_ARE_STABLE, text)
            entry.commit_ms = head.commit_timestamp_ms

    # What a batch in the log is known by; those of a changelog differ (keyed.py).

    def _place(self, batch: SentBatch, told_offset: int, /) -> Place:
        """Return where an acknowledged batch is, which a server told by one offset."""
        return told_offset, told_offset + batch.record_count

    def _anchor(self, head: BatchHead) -> int:
        """Return the offset by which a batch of the log is known."""
        return head.base_offset

    def _is_of(self, batch: SentBatch, head: BatchHead) -> bool:
        """Whether what is in the log is what was sent."""
        return batch.facts == (
            head.crc,
            head.writer_id,
            head.batch_sequence,
            head.schema_id,
            head.record_count,
        )

    def _name(self) -> str:
        partition = f" partition {self.key[1]}" if self.key[1] >= 0 else ""
        return f"table {self.key[0]}{partition} bucket {self.key[2]}"

    def _known(self, start_offset: int, end_offset: int, identity: Identity, crc: int) -> Entry:
        entry = self.entries.get(start_offset)
        if start_offset < self.start_offset and self.places.get(identity, start_offset) == start_offset:
            return Entry(start_offset, end_offset, identity, crc)  # an answer older than its end
        if entry is not None:
            if (entry.identity, entry.crc, entry.end_offset) != (identity, crc, end_offset):
                text = f"{self._name()} at {start_offset}: known is {entry.identity}, got {identity}"
                raise Violation(Oracle.READS_ARE_STABLE, text)
            return entry
        other = self.places.get(identity)
        if other is not None and other != start_offset:
            text = f"{self._name()}: {identity} is at {other}, and at {start_offset}"
            raise Violation(Oracle.EXACTLY_ONCE, text)
        entry = Entry(start_offset, end_offset, identity, crc)
        self.entries[start_offset] = entry
        self.places[identity] = start_offset
        self.end_offset = max(self.end_offset, end_offset)
        return entry

    # ---- what happens to servers ---------------------------------------------------------------

    def gave_up(self, start_offset: int) -> None:
        """Retention gave up all below *start_offset*; what was where is remembered."""
        self.start_offset = max(self.start_offset, start_offset)
        for entry in [entry for entry in self.entries.values() if entry.start_offset < start_offset]:
            del self.entries[entry.start_offset]

    def ended(self, durable_offset: int) -> None:
        """The process that held the log ended, and believed this much of it to be durable."""
        self.floor_offset = max(self.floor_offset, durable_offset)

    def recovered(self, end_offset: int, start_offset: int) -> None:
        """A server read its log, and found it to end and to begin here."""
        if self.is_dropped:
            return  # its files may be gone in part
        # What retention gave up is back if no checkpoint could say so (seed 3544).
        self.start_offset = min(self.start_offset, start_offset)
        power_lost, self.power_lost = self.power_lost, False
        if power_lost and end_offset < self.floor_offset:
            text = f"{self._name()}: durable was [0, {self.floor_offset}), recovered [0, {end_offset})"
            raise Violation(Oracle.SYNCED_SURVIVES, text)
        gone = [entry for entry in self.entries.values() if entry.end_offset > end_offset]
        for entry in sorted(gone, key=lambda entry: entry.start_offset):
            self._lost(entry, end_offset, power_lost=power_lost)
            del self.entries[entry.start_offset]
            del self.places[entry.identity]
        if gone or power_lost:
            self.generation += 1
            self.end_offset = min(self.end_offset, end_offset)
            self.committed_offset = min(self.committed_offset, end_offset)

    def _lost(self, entry: Entry, end_offset: int, *, power_lost: bool) -> None:
        where = f"{self._name()} [{entry.start_offset}, {entry.end_offset}) {entry.identity}"
        text = f"{where}: the log was recovered up to {end_offset}, power was lost: {power_lost}"
        excused = power_lost and not self.promises_all
        if entry.acked and not excused:
            raise Violation(Oracle.ACKED_SURVIVES, text)
        if entry.was_read and not excused:
            raise Violation(Oracle.READS_ARE_STABLE, text)
        if entry.acked_weakly and not (power_lost or self.promises_all):
            raise Violation(Oracle.ACKED_SURVIVES, text)

    def forgot_writer(self, batch: SentBatch, text: str) -> None:
        """A server refused, as out of order, the oldest batch that was not acknowledged."""
        excused = batch.generation != self.generation and not (self.promises_all and batch.acks == -1)
        if not excused:
            raise Violation(Oracle.WRITERS_REMEMBERED, f"{self._name()} {batch.identity}: {text}")

    # ---- the end -------------------------------------------------------------------------------

    def audited(self, end_offset: int, in_log: dict[int, BatchHead]) -> None:
        """A fresh reader read everything, up to *end_offset*: judge the whole."""
        at = min(in_log, default=end_offset)
        if at > self.start_offset:
            text = f"{self._name()}: begins at {at}, expected {self.start_offset} at the latest"
            raise Violation(Oracle.CONTIGUOUS, text)
        begins, sequences, commit_ms = at, dict[int, int](), 0
        for start_offset in sorted(in_log):
            head = in_log[start_offset]
            if head.commit_timestamp_ms < commit_ms:
                text = f"{self._name()} at {start_offset}: {head.commit_timestamp_ms} is behind {commit_ms}"
                raise Violation(Oracle.TIMES_ARE_ORDERED, text)
            commit_ms = head.commit_timestamp_ms
            if start_offset != at:
                text = f"{self._name()}: expected a batch at {at}, got one at {start_offset}"
                raise Violation(Oracle.CONTIGUOUS, text)
            at += head.last_offset_delta + 1
            if begins and head.writer_id not in sequences:
                sequences[head.writer_id] = head.batch_sequence - 1  # what was before is given up
            self._in_order(head, sequences)
        if at != end_offset:
            raise Violation(Oracle.CONTIGUOUS, f"{self._name()}: ends at {at}, expected {end_offset}")
        anchors = {self._anchor(head) for head in in_log.values()}
        for entry in self.entries.values():
            if entry.acked and entry.start_offset >= begins and entry.start_offset not in anchors:
                text = f"{self._name()} at {entry.start_offset}: {entry.identity} is not there"
                raise Violation(Oracle.ACKED_SURVIVES, text)

        sequences_there = {(head.writer_id, head.batch_sequence) for head in in_log.values()}
        for identity, generation in self.promised.items():
            batch = self.sent[identity]
            is_there = (batch.writer_id, batch.sequence) in sequences_there
            if not is_there and not begins and not self.may_have_been_cut(generation):
                raise Violation(Oracle.ACKED_SURVIVES, f"{self._name()}: {identity} is not there")
        valid = [probe for probe in self.probes if not self.may_have_been_cut(probe.generation)]
        judge_probes(self._name(), valid, in_log, self.values_at)

    def values_at(self, head: BatchHead) -> Values:
        """Return what the rows of a batch in the log have in the column that is filtered by."""
        return self.sent[self.by_sequence[head.writer_id, head.batch_sequence]].values

    def _in_order(self, head: BatchHead, sequences: dict[int, int]) -> None:
        expected = sequences.get(head.writer_id, -1) + 1
        if head.batch_sequence != expected:
            text = f"{self._name()} at {head.base_offset}: writer {head.writer_id}: "
            raise Violation(Oracle.IN_ORDER, f"{text}expected {expected}, got {head.batch_sequence}")
        sequences[head.writer_id] = expected


@attrs.define(eq=False, repr=False)
class Ledgers:
    """The ledgers of all buckets that are written to and were not dropped."""

    durability: Durability
    by_key: dict[BucketKey, Ledger] = attrs.Factory(dict)
    kinds: dict[int, Callable[[BucketKey, Durability], Ledger]] = attrs.Factory(dict)  # by table id

    def of(self, key: BucketKey) -> Ledger:
        """Return the ledger of a bucket."""
        ledger = self.by_key.get(key)
        if ledger is None:
            ledger = self.by_key[key] = self.kinds.get(key[0], Ledger)(key, self.durability)
        return ledger
