"""LIST_OFFSETS: earliest, latest, or by commit time, for buckets of one table.

Latest offsets of a new leader wait for its first commit (rule 2): a reader must never be told an end
that goes back. A time may have to be looked for in the file; the request waits for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.connections import Reply, RequestReceived
from flussd.core.files import FileRead
from flussd.core.limits import TERM_COMMIT_HOLD_MS
from flussd.core.replica.events import BucketKey
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Role
from flussd.core.tablet.fetch import end_in
from flussd.core.tablet.locate import Seek, Walk, WalkEnd, Walks
from flussd.core.tablet.parked import Waiter
from flussd.core.tablet.produce import HELD_CODES
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

EARLIEST: Final = 0
LATEST: Final = 1
TIMESTAMP: Final = 2


@attrs.define(eq=False)
class OffsetsWaiter(Waiter):
    """A request whose buckets have not all answered."""

    offset_type: int = EARLIEST
    timestamp_ms: int = 0
    results: list[Any] = attrs.Factory(list)
    waited: bool = False
    refused: str = ""  # why no bucket can be answered
    looked_to: int = -1  # the watermark that the present walk goes up to


@attrs.define(eq=False)
class Offsets:
    """The offset requests of a tablet server that wait for a read."""

    server: TabletServer
    walks: Walks[OffsetsWaiter] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.walks = Walks(self.server)

    def received(self, event: RequestReceived) -> None:
        """Take a request in."""
        asked = event.message
        partition_id = asked.partition_id if asked.HasField("partition_id") else -1
        waiter = OffsetsWaiter(
            event.connection,
            event.request_id,
            self.server.now_ms + TERM_COMMIT_HOLD_MS,
            keys=tuple((asked.table_id, partition_id, bucket) for bucket in asked.bucket_id),
            offset_type=asked.offset_type,
            timestamp_ms=asked.startTimestamp,
            refused=_refusal(asked),
        )
        self.run(waiter)

    def run(self, waiter: OffsetsWaiter) -> None:
        """Work on through the buckets; stops where a read or a commit is waited for."""
        while len(waiter.results) < len(waiter.keys):
            result = self._result(waiter, waiter.keys[len(waiter.results)])
            if result is None:
                return
            waiter.results.append(result)
        response = messages.ListOffsetsResponse()
        response.buckets_resp.extend(waiter.results)
        held = any(result.error_code in HELD_CODES for result in waiter.results)
        reply = Reply(waiter.connection, waiter.request_id, response)
        self.server.emit_or_hold(reply, held=held and not waiter.waited)

    def woken(self, waiter: OffsetsWaiter) -> None:
        """News of a bucket that it waits for."""
        self.server.parked.remove(waiter)
        self.run(waiter)

    def timed_out(self, waiter: OffsetsWaiter) -> None:
        """A leader that does not commit in time is none yet."""
        waiter.waited = True
        self.run(waiter)

    def _result(self, waiter: OffsetsWaiter, key: BucketKey) -> Any | None:
        replica = self.server.buckets.replicas.get(key)
        if replica is None or replica.role is not Role.LEADER:
            return _refused(key, *self.server.buckets.why_not(key))
        if waiter.refused:
            return _refused(key, ErrorCode.UNKNOWN_SERVER_ERROR, waiter.refused)
        if waiter.offset_type == EARLIEST:
            return _found(key, replica.log.start_offset)
        if not replica.has_committed:
            if waiter.waited:
                text = "the leader has not committed in its term yet"
                return _refused(key, ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION, text)
            self.server.parked.add(waiter)
            return None
        if waiter.offset_type == LATEST:
            return _found(key, replica.high_watermark)
        return self._by_time(waiter, key, replica)

    def _by_time(self, waiter: OffsetsWaiter, key: BucketKey, replica: Replica) -> Any | None:
        if waiter.timestamp_ms > self.server.wall_ms:
            text = f"timestamp {waiter.timestamp_ms} is later than the server's {self.server.wall_ms}"
            return _refused(key, ErrorCode.INVALID_TIMESTAMP_EXCEPTION, text)
        start = replica.log.locate_timestamp(waiter.timestamp_ms)
        if start is None:
            return _found(key, replica.high_watermark)
        file = replica.log.file(start.segment)
        end_position = end_in(replica, start.segment)
        if start.position >= end_position:
            return _found(key, replica.high_watermark)
        waiter.looked_to = replica.high_watermark
        walk = Walk.begin(Seek.TIMESTAMP, waiter.timestamp_ms, file, start, end_position)
        self.walks.go_on(walk, waiter)
        return None

    def read(self, event: FileRead) -> None:
        """A read of a walk ended."""
        ended = self.walks.ended(event)
        if ended is None:
            return
        walk, waiter, end = ended
        key = waiter.keys[len(waiter.results)]
        if end in (WalkEnd.CORRUPT, WalkEnd.UNREADABLE):
            text = f"{walk.file}: no batch head can be read at {walk.position}"
            waiter.results.append(_refused(key, ErrorCode.LOG_STORAGE_EXCEPTION, text))
        elif end is WalkEnd.BEYOND:
            # Not the present watermark: nobody looked at what was committed since (seed 2079).
            waiter.results.append(_found(key, waiter.looked_to))
        elif walk.head is not None:
            waiter.results.append(_found(key, walk.head.base_offset))
        if waiter.connection in self.server.connections:
            self.run(waiter)


def _refusal(asked: messages.ListOffsetsRequest) -> str:
    """Tell what is wrong with a request; upstream answers each bucket with it."""
    if asked.offset_type not in (EARLIEST, LATEST, TIMESTAMP):
        return f"offset type: expected 0, 1 or 2, got {asked.offset_type}"
    if asked.offset_type == TIMESTAMP and not asked.HasField("startTimestamp"):
        return "offset type 2 needs a startTimestamp"
    return ""


def _found(key: BucketKey, offset: int) -> Any:
    return messages.PbListOffsetsRespForBucket(bucket_id=key[2], offset=offset)


def _refused(key: BucketKey, code: ErrorCode, text: str) -> Any:
    return messages.PbListOffsetsRespForBucket(bucket_id=key[2], error_code=int(code), error_message=text)
