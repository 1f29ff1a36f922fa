"""FETCH_LOG: what each bucket can give now, or a place in the queue until there is enough.

A request is worked through bucket by bucket; where the place of an offset must be looked for in the
file, it waits for that read and goes on from there. A parked request is woken in the step in which a
watermark moves. Each answer has all requested buckets; one segment's bytes for each at most. What is to be
projected or filtered follows from the table as it is known when the answer is made, not when it was asked.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.catalog.records import TableRecord
from flussd.core.connections import FetchAnswer, FetchAnswerTable, ReplyError, RequestReceived, SendSpans
from flussd.core.files import DiskError, FileRead
from flussd.core.limits import FETCH_BUCKET_BYTES_MAX, FETCH_BYTES_MAX, FETCH_WAIT_DEFAULT_MS
from flussd.core.log.log import Located
from flussd.core.log.segment import Segment
from flussd.core.records.predicate import Filter
from flussd.core.records.project import Projection
from flussd.core.replica.events import BucketKey
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Role
from flussd.core.tablet.locate import Seek, Walk, WalkEnd, Walks
from flussd.core.tablet.parked import Waiter
from flussd.core.tablet.parts import key_of
from flussd.core.tablet.produce import HELD_CODES
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

EARLIEST: Final = -2
"""The offset by which a client asks for the log's start."""

PLACES_MAX: Final = 1024
"""Found places of cold batches that are remembered, for the reads that follow at once."""

DO_NOT_END_A_WAIT: Final = frozenset(
    {ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION}
)


@attrs.frozen
class Slot:
    """One bucket of a request: where in the answer, and what is asked."""

    table: int
    key: BucketKey
    partition_id: int | None
    fetch_offset: int
    max_bytes: int
    projection: Projection | None
    refused: ErrorCode = ErrorCode.NONE
    refused_text: str = ""
    filter: Filter | None = None
    widening: int = 1  # stored bytes to be read for each that may be sent


@attrs.define(eq=False)
class FetchWaiter(Waiter):
    """A fetch on its way, or parked."""

    max_bytes: int = 0
    min_bytes: int = 0
    asked: tuple[Any, ...] = ()  # the tables of the request
    tables: tuple[TableRecord | None, ...] = ()  # as they were known when the slots were made
    slots: tuple[Slot, ...] = ()
    answers: list[FetchAnswer] = attrs.Factory(list)  # of the slots worked through so far
    got_bytes: int = 0
    ends_wait: bool = False
    may_wait: bool = True

    def restart(self) -> None:
        """Begin again with the first bucket."""
        self.answers, self.got_bytes, self.ends_wait = [], 0, False


@attrs.frozen
class Place:
    """Where a batch is: *size_bytes* of it at *position* of a segment, or why that is unknown."""

    segment_base: int
    position: int
    size_bytes: int
    error: ErrorCode = ErrorCode.NONE
    text: str = ""


@attrs.define(eq=False)
class Fetches:
    """The fetches of a tablet server."""

    server: TabletServer
    walks: Walks[FetchWaiter] = attrs.field(init=False)
    places: OrderedDict[tuple[BucketKey, int], Place] = attrs.Factory(OrderedDict)
    expired_count: int = 0  # parked ones whose time was up

    def __attrs_post_init__(self) -> None:
        self.walks = Walks(self.server)

    # ---- a request comes in --------------------------------------------------------------------

    def received(self, event: RequestReceived) -> None:
        """Take a request in."""
        asked = event.message
        for table in asked.tables_req:
            if table.HasField("filter_predicate") and not table.HasField("filter_schema_id"):
                text = "filter_predicate: expected a filter_schema_id with it"
                self.server.emit(
                    ReplyError(event.connection, event.request_id, ErrorCode.UNKNOWN_SERVER_ERROR, text)
                )
                return
        min_bytes = asked.min_bytes if asked.HasField("min_bytes") else 0
        wait_ms = asked.max_wait_ms if asked.HasField("max_wait_ms") else FETCH_WAIT_DEFAULT_MS
        waiter = FetchWaiter(
            event.connection,
            event.request_id,
            self.server.now_ms + max(0, wait_ms),
            keys=tuple(
                key_of(table.table_id, bucket) for table in asked.tables_req for bucket in table.buckets_req
            ),
            max_bytes=min(asked.max_bytes, FETCH_BYTES_MAX),
            min_bytes=min_bytes,
            asked=tuple(asked.tables_req),
            may_wait=min_bytes > 0 and wait_ms > 0,
        )
        self.run(waiter)

    def _slots(self, index: int, table: Any) -> list[Slot]:
        projection, code, text = None, ErrorCode.NONE, ""
        if table.projection_pushdown_enabled:
            projection, code, text = self.server.projection_of(
                table.table_id, tuple(table.projected_fields)
            )
        filter_ = None
        if table.HasField("filter_predicate"):
            filter_ = self.server.filter_of(table.table_id, table.filter_schema_id, table.filter_predicate)
        # A filter tells the client up to where it looked, so that behind it nothing can be left out.
        widening = projection.widening if projection is not None and filter_ is None else 1
        slots = []
        for bucket in table.buckets_req:
            partition_id = bucket.partition_id if bucket.HasField("partition_id") else None
            slots.append(
                Slot(
                    index,
                    key_of(table.table_id, bucket),
                    partition_id,
                    bucket.fetch_offset,
                    bucket.max_fetch_bytes,
                    projection,
                    code,
                    text,
                    filter_,
                    widening,
                )
            )
        return slots

    # ---- working through it --------------------------------------------------------------------

    def _resolve(self, waiter: FetchWaiter) -> None:
        """Make the slots, or make them anew: a table may be heard of, or altered, while a fetch waits."""
        tables = tuple([self.server.catalog.table_by_id(table.table_id) for table in waiter.asked])
        if waiter.slots and all(a is b for a, b in zip(tables, waiter.tables, strict=True)):
            return
        waiter.tables = tables
        slots = [slot for index, table in enumerate(waiter.asked) for slot in self._slots(index, table)]
        waiter.slots = tuple(slots)

    def run(self, waiter: FetchWaiter) -> None:
        """Work on through the buckets, then answer or park; or stop where a place must be found."""
        self._resolve(waiter)
        while len(waiter.answers) < len(waiter.slots):
            slot = waiter.slots[len(waiter.answers)]
            answer = self._answer(waiter, slot)
            if answer is None:
                return  # goes on when the place is found
            waiter.answers.append(answer)
            waiter.got_bytes += sum(size_bytes for _, _, size_bytes in answer.spans)
            if answer.error_code and answer.error_code not in DO_NOT_END_A_WAIT:
                waiter.ends_wait = True
        enough = waiter.got_bytes >= waiter.min_bytes or waiter.ends_wait
        if enough or not waiter.may_wait or self.server.now_ms >= waiter.deadline_ms:
            self._send(waiter)
        else:
            self.server.parked.add(waiter)

    def woken(self, waiter: FetchWaiter) -> None:
        """News of one of its buckets: look again."""
        self.server.parked.remove(waiter)
        waiter.restart()
        self.run(waiter)

    def timed_out(self, waiter: FetchWaiter) -> None:
        """Its time is up: send what there is."""
        self.expired_count += 1
        waiter.may_wait = False
        waiter.restart()
        self.run(waiter)

    def _send(self, waiter: FetchWaiter) -> None:
        tables = [
            FetchAnswerTable(
                table.table_id,
                tuple(a for slot, a in zip(waiter.slots, waiter.answers, strict=True) if slot.table == n),
            )
            for n, table in enumerate(waiter.asked)
        ]
        for slot, answer in zip(waiter.slots, waiter.answers, strict=True):
            self._count(slot, answer)
        reply = SendSpans(waiter.connection, waiter.request_id, tuple(tables))
        waited = waiter.serial >= 0  # a parked one took its time already
        held = not waited and any(a.error_code in HELD_CODES for a in waiter.answers)
        self.server.emit_or_hold(reply, held=held)

    def _count(self, slot: Slot, answer: FetchAnswer) -> None:
        replica = self.server.buckets.replicas.get(slot.key)
        if replica is None:
            return
        counts = replica.counts
        counts.fetch_count += 1
        if answer.error_code:
            counts.failed_fetch_count += 1
        for _, _, size_bytes in answer.spans:
            counts.out_bytes += size_bytes

    def _answer(self, waiter: FetchWaiter, slot: Slot) -> FetchAnswer | None:
        replica = self.server.buckets.replicas.get(slot.key)
        if replica is None or replica.role is not Role.LEADER:
            code, text = self.server.buckets.why_not(slot.key)
            return _refused(slot, code, text)
        if slot.refused:
            return _refused(slot, slot.refused, slot.refused_text)
        log, high_watermark = replica.log, replica.high_watermark
        offset = log.start_offset if slot.fetch_offset == EARLIEST else slot.fetch_offset
        if not log.start_offset <= offset <= log.end_offset:
            text = f"fetch offset {offset}: the log has [{log.start_offset}, {log.end_offset})"
            return _refused(slot, ErrorCode.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION, text)
        left_bytes = waiter.max_bytes - waiter.got_bytes
        limit_bytes = min(slot.max_bytes, left_bytes, FETCH_BUCKET_BYTES_MAX)
        first_whole = waiter.got_bytes == 0
        if offset >= high_watermark:
            return FetchAnswer(slot.partition_id, slot.key[2], high_watermark)
        if limit_bytes <= 0 and not first_whole:
            waiter.ends_wait = True  # there is more than fits: waiting brings nothing
            return FetchAnswer(slot.partition_id, slot.key[2], high_watermark)
        limit_bytes = _widened(waiter, slot, limit_bytes)
        found = log.locate(offset)
        if isinstance(found, Located):
            answer = _hot(replica, slot, found, limit_bytes, first_whole=first_whole)
            waiter.ends_wait |= _leaves_out(replica, found.segment, found.position, answer)
            return answer
        place = self.places.get((slot.key, offset))
        if place is None:
            file, end_position = log.file(found.segment), end_in(replica, found.segment)
            self.walks.go_on(Walk.begin(Seek.OFFSET, offset, file, found, end_position), waiter)
            return None
        if place.error:
            del self.places[slot.key, offset]
            return _refused(slot, place.error, place.text)
        answer = _cold(replica, slot, found.segment, place, limit_bytes, first_whole=first_whole)
        waiter.ends_wait |= _leaves_out(replica, found.segment, place.position, answer)
        return answer

    # ---- places of cold batches ----------------------------------------------------------------

    def read(self, event: FileRead) -> None:
        """A read of a walk ended: go on walking, or with the request."""
        ended = self.walks.ended(event)
        if ended is None:
            return
        walk, waiter, end = ended
        key = waiter.keys[len(waiter.answers)]
        self.places[key, walk.target] = _place(walk, end, event.error)
        while len(self.places) > PLACES_MAX:
            self.places.popitem(last=False)
        if waiter.connection in self.server.connections:
            self.run(waiter)

    def forget_places(self, key: BucketKey) -> None:
        """The log may be another one from now on."""
        for place in [place for place in self.places if place[0] == key]:
            del self.places[place]


def end_in(replica: Replica, segment: Segment) -> int:
    """Return the position in *segment* up to which readers may see it: that of the watermark."""
    end_offset, base_offset, size_bytes, _ = replica.committed
    if end_offset >= segment.end_offset:
        return segment.size_bytes
    return size_bytes if base_offset == segment.base_offset else 0


def _widened(waiter: FetchWaiter, slot: Slot, limit_bytes: int) -> int:
    """Return how many stored bytes to read for *limit_bytes* of projected ones.

    Buckets share what the whole answer may have.
    """
    share_bytes = min(waiter.max_bytes, FETCH_BUCKET_BYTES_MAX) // len(waiter.slots)
    return max(limit_bytes, min(limit_bytes * slot.widening, share_bytes))


def _leaves_out(replica: Replica, segment: Segment, position: int, answer: FetchAnswer) -> bool:
    """Whether a reader could be given more of its bucket than *answer* has, from *position* on."""
    sent_bytes = sum(size_bytes for _, _, size_bytes in answer.spans)
    return position + sent_bytes < end_in(replica, segment) or segment is not replica.log.active


def _refused(slot: Slot, code: ErrorCode, text: str) -> FetchAnswer:
    return FetchAnswer(slot.partition_id, slot.key[2], error_code=int(code), error_text=text)


def _hot(
    replica: Replica, slot: Slot, found: Located, limit_bytes: int, *, first_whole: bool
) -> FetchAnswer:
    """Whole batches by the dense index; all of them checked when they came in."""
    segment, position = found.segment, found.position
    end_position = end_in(replica, segment)
    end = segment.dense.boundary(position + max(0, limit_bytes), end_position)
    if end <= position and first_whole:
        end = segment.dense.next_boundary(position, end_position)
    return _span(replica, slot, segment, position, end, verify=False)


def _cold(
    replica: Replica, slot: Slot, segment: Segment, place: Place, limit_bytes: int, *, first_whole: bool
) -> FetchAnswer:
    """At least one whole batch; the driver checks every one, and drops a cut one at the end."""
    end_position = end_in(replica, segment)
    size_bytes = place.size_bytes if first_whole else 0
    end = min(place.position + max(limit_bytes, size_bytes), end_position)
    if end - place.position < place.size_bytes:
        end = place.position
    return _span(replica, slot, segment, place.position, end, verify=True)


def _span(
    replica: Replica, slot: Slot, segment: Segment, position: int, end: int, *, verify: bool
) -> FetchAnswer:
    spans = ((replica.log.file(segment), position, end - position),) if end > position else ()
    return FetchAnswer(
        slot.partition_id,
        slot.key[2],
        replica.high_watermark,
        spans,
        verify=verify,
        projection=slot.projection if spans else None,
        filter=slot.filter if spans else None,
        limit_bytes=max(1, slot.max_bytes) if slot.widening > 1 else 0,
    )


def _place(walk: Walk, end: WalkEnd, error: DiskError | None) -> Place:
    if end is WalkEnd.FOUND:
        assert walk.head is not None
        return Place(walk.segment_base, walk.position, walk.head.size_bytes)
    if error is not None:
        text = f"{walk.file}: {error.value}"
        return Place(walk.segment_base, 0, 0, ErrorCode.LOG_STORAGE_EXCEPTION, text)
    text = f"{walk.file}: no batch head at {walk.position}"
    return Place(walk.segment_base, 0, 0, ErrorCode.CORRUPT_MESSAGE, text)
