"""A reader: follows all buckets of a table by long polls, and tells the ledgers all it sees.

Whole batches, in order, without a gap: what a fetch returns must continue what came before. A reader may
begin again at the start, to see that history is still the same. One that filters notes what was left out,
one that projects compares what it gets with what was written.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from flussd.core.records.batch import BatchHead, crc_is_right, read_head
from flussd.core.replica.events import BucketKey
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.oracles.ledger import Ledger, Ledgers
from flussd.runtime_sim.oracles.probes import LeftOut
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.batches import Identity, identity_of, records_of
from flussd.runtime_sim.workload.client import Answer, Client, Place
from flussd.runtime_sim.workload.places import Places, TableInUse
from flussd.runtime_sim.workload.rows import Wanted

EARLIEST: Final = -2

RETRIABLE: Final = frozenset(
    {
        ErrorCode.LOG_STORAGE_EXCEPTION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION,
        ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION,
    }
)


@attrs.frozen
class ReaderConfig:
    """How one reader reads; drawn from the seed."""

    pause_ms: int
    wait_ms: int
    min_bytes: int
    max_bytes: int
    bucket_bytes: int
    restart_ppm: int  # chance to begin again, at each answer
    wanted: Wanted | None = None
    columns: tuple[int, ...] = ()  # to project to; none: all


@attrs.define(eq=False, repr=False)
class Cursor:
    """Where a reader is in one bucket."""

    place: Place
    key: BucketKey
    ledger: Ledger
    offset: int = 0
    generation: int = 0  # of the ledger, when the offset was reached
    is_fresh: bool = True  # asks for the earliest offset
    batch_count: int = 0
    seen: dict[int, BatchHead] | None = None  # by offset, of a reader that audits
    is_gone: bool = False

    @property
    def bucket(self) -> int:
        """Its bucket's number."""
        return self.key[2]


@attrs.define(eq=False, repr=False)
class Reader:
    """One reader of one table."""

    client: Client
    table: TableInUse
    config: ReaderConfig
    ledgers: Ledgers
    audits: bool = False
    cursors: list[Cursor] = attrs.Factory(list)
    places: Places = attrs.field(init=False)
    busy: dict[str, None] = attrs.Factory(dict)  # addresses with a fetch in flight

    def __attrs_post_init__(self) -> None:
        self.places = Places(self.client, self.table, self._found, self._gone)

    def start(self) -> None:
        """Begin to read."""
        self.places.start()

    def _found(self, place: Place, partition_id: int) -> None:
        for bucket in range(self.table.spec.buckets):
            key = (self.table.table_id, partition_id, bucket)
            seen = dict[int, BatchHead]() if self.audits else None
            self.cursors.append(Cursor(place, key, self.ledgers.of(key), seen=seen))
        self._fetch_all()

    def _gone(self, _: Place, partition_id: int) -> None:
        for cursor in self.cursors:
            cursor.is_gone |= cursor.key[1] == partition_id
        self.cursors = [cursor for cursor in self.cursors if not cursor.is_gone]
        self.client.later(0, self.config.pause_ms, self._fetch_all)

    def _fetch_all(self) -> None:
        if self.client.is_stopping:
            return
        by_address: dict[str, list[Cursor]] = {}
        for cursor in self.cursors:
            address = self.client.leader_of(cursor.place, cursor.bucket)
            if address is None:
                self._learn(cursor)
            else:
                by_address.setdefault(address, []).append(cursor)
        for address, cursors in by_address.items():
            if address not in self.busy:
                self._fetch(address, cursors)

    def _fetch(self, address: str, cursors: list[Cursor]) -> None:
        config = self.config
        self.busy[address] = None
        first = self.client.draws.below(len(cursors))  # else a small answer would starve the last ones
        cursors = cursors[first:] + cursors[:first]
        request = messages.FetchLogRequest(
            follower_server_id=-1,
            max_bytes=config.max_bytes,
            min_bytes=config.min_bytes,
            max_wait_ms=config.wait_ms,
        )
        table = request.tables_req.add(
            table_id=self.table.table_id,
            projection_pushdown_enabled=bool(config.columns),
            projected_fields=config.columns,
        )
        if config.wanted is not None:
            table.filter_predicate.CopyFrom(config.wanted.told())
            table.filter_schema_id = self.client.schema_ids.get(self.table.spec.name, 1)
        for cursor in cursors:
            offset = EARLIEST if cursor.is_fresh else cursor.offset
            bucket = table.buckets_req.add(
                bucket_id=cursor.bucket, fetch_offset=offset, max_fetch_bytes=config.bucket_bytes
            )
            if cursor.place.partition:
                bucket.partition_id = cursor.key[1]
        asked = [(cursor, cursor.ledger.generation, cursor.offset) for cursor in cursors]

        def answered(answer: Answer) -> None:
            del self.busy[address]
            self._answered(asked, answer)

        self.client.ask(address, ApiKey.FETCH_LOG, request, answered)

    def _answered(self, asked: list[tuple[Cursor, int, int]], answer: Answer) -> None:
        if answer.message is None:
            if not answer.is_lost:
                text = f"{self.client.name}: a fetch got {answer.code}: {answer.text}"
                raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)
            left = [cursor for cursor, _, _ in asked if not cursor.is_gone]
            for cursor in left:
                self._learn(cursor)
            if not left:
                self._fetch_all()
            return
        (table,) = answer.message.tables_resp
        failed = False
        for (cursor, generation, offset), bucket in zip(asked, table.buckets_resp, strict=True):
            if cursor.offset != offset or cursor.is_gone:
                continue  # it began again meanwhile
            if self._took(cursor, generation, bucket):
                self._learn(cursor)
                failed = True
        if self.cursors and self.client.draws.chance(self.config.restart_ppm):
            self._restart()
        if not failed:
            self.client.later(0, self.config.pause_ms, self._fetch_all)

    def _restart(self) -> None:
        """Begin again with one bucket: history must be the same."""
        self._begin_again(self.client.draws.choice(self.cursors))
        self.client.world.count("readers begun again")

    @staticmethod
    def _begin_again(cursor: Cursor) -> None:
        cursor.offset, cursor.is_fresh, cursor.generation = 0, True, cursor.ledger.generation
        if cursor.seen is not None:
            cursor.seen.clear()

    def _took(self, cursor: Cursor, generation: int, bucket: Any) -> bool:
        """Take the answer of one bucket in; return whether to look for its leader again."""
        if bucket.error_code == ErrorCode.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION:
            expired = cursor.offset < cursor.ledger.start_offset
            if not expired and not cursor.ledger.may_have_been_cut(cursor.generation):
                text = f"{self.client.name}: offset {cursor.offset} of bucket {cursor.bucket}: "
                raise Violation(Oracle.READS_ARE_STABLE, text + bucket.error_message)
            self._begin_again(cursor)
            return False
        if bucket.error_code:
            if bucket.error_code not in RETRIABLE:
                text = f"{self.client.name}: a bucket got {bucket.error_code}: {bucket.error_message}"
                raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)
            return True
        view = memoryview(bucket.records)
        if cursor.is_fresh:
            cursor.offset = self._beginning(cursor, view, bucket)
        cursor.is_fresh = False
        self._records(cursor, generation, view, bucket.high_watermark)
        if cursor.is_fresh:
            return False  # it begins again: what the answer says is of the log before the cut (seed 201)
        if bucket.HasField("filtered_end_offset") and bucket.filtered_end_offset >= 0:
            self._skip(cursor, generation, bucket.filtered_end_offset, bucket.high_watermark)
        return False

    @staticmethod
    def _beginning(cursor: Cursor, view: memoryview, bucket: Any) -> int:
        """Return where the log begins, as the first answer shows it: at 0, or where retention put it."""
        head = read_head(view, 0) if len(view) else None
        first = head.base_offset if head is not None else bucket.high_watermark
        if bucket.HasField("filtered_end_offset") and bucket.filtered_end_offset >= 0:
            first = min(first, bucket.filtered_end_offset)
        return int(min(first, cursor.ledger.start_offset))

    def _skip(self, cursor: Cursor, generation: int, end_offset: int, high_watermark: int) -> None:
        """A filter left out what is before *end_offset*."""
        where = f"{self.client.name}: bucket {cursor.bucket} at {cursor.offset}"
        if self.config.wanted is None or end_offset < cursor.offset:
            raise Violation(Oracle.CONTIGUOUS, f"{where}: was told to go on at {end_offset}")
        if end_offset > high_watermark:
            text = f"{where}: was told to go on at {end_offset}, beyond {high_watermark}"
            raise Violation(Oracle.BELOW_WATERMARK, text)
        if end_offset > cursor.offset:
            left_out = LeftOut(self.client.name, cursor.offset, end_offset, self.config.wanted, generation)
            cursor.ledger.probes.append(left_out)
            cursor.offset, cursor.generation = end_offset, generation
            self.client.world.count("runs of batches left out")

    def _records(self, cursor: Cursor, generation: int, view: memoryview, high_watermark: int) -> None:
        at = 0
        while at < len(view):
            head = read_head(view, at)
            where = f"{self.client.name}: bucket {cursor.bucket} at {cursor.offset}"
            if head is None or at + head.size_bytes > len(view) or not self._is_whole(view, head):
                raise Violation(Oracle.BYTES_ARE_WHOLE, f"{where}: not a whole batch: {head}")
            if head.base_offset > cursor.offset and self.config.wanted is not None:
                self._skip(cursor, generation, head.base_offset, high_watermark)
            if head.base_offset != cursor.offset:
                if cursor.ledger.may_have_been_cut(cursor.generation):
                    self._begin_again(cursor)
                    return
                skipped = head.base_offset <= cursor.offset <= head.base_offset + head.last_offset_delta
                raise Violation(Oracle.CONTIGUOUS, f"{where}: got {head.base_offset}, within it: {skipped}")
            identity = self._identity(cursor, view, head)
            if identity is None:
                raise Violation(Oracle.NOTHING_INVENTED, f"{where}: nobody wrote this: {head}")
            cursor.ledger.read(head, identity, generation, high_watermark)
            self._note(cursor, identity, view[at : at + head.size_bytes], head, generation)
            if cursor.seen is not None:
                cursor.seen[head.base_offset] = head
            cursor.offset += head.last_offset_delta + 1
            cursor.generation = generation
            cursor.batch_count += 1
            self.client.world.count("batches read")
            at += head.size_bytes

    def _note(
        self, cursor: Cursor, identity: Identity, data: memoryview, head: BatchHead, generation: int
    ) -> None:
        """One more batch was read; what it holds is of no interest here."""

    def _is_whole(self, view: memoryview, head: BatchHead) -> bool:
        """Whether a batch has its checksum; a projected one has that of the whole."""
        return bool(self.config.columns) or crc_is_right(view, head)

    def _identity(self, cursor: Cursor, view: memoryview, head: BatchHead) -> Identity | None:
        if not self.config.columns:
            return identity_of(view, head)
        identity = cursor.ledger.by_sequence.get((head.writer_id, head.batch_sequence))
        if identity is not None:
            expected = cursor.ledger.sent[identity].projected(self.config.columns)
            if records_of(view, head) != expected:
                text = f"{self.client.name}: columns {self.config.columns} of {identity}: got {head}, with "
                raise Violation(
                    Oracle.PROJECTIONS_KEEP_VALUES, f"{text}{bytes(records_of(view, head))[:200].hex()}"
                )
        return identity

    def _learn(self, cursor: Cursor) -> None:
        if not self.client.is_stopping:
            self.places.learn(cursor.place, self._fetch_all)

    def facts(self) -> dict[str, Any]:
        """Return the state in a few words, for a dump."""
        return {"cursors": [[*c.key, c.offset, c.batch_count] for c in self.cursors]}
