"""LIMIT_SCAN of log tables and GET_TABLE_STATS: the last rows of a bucket, and how many it has.

Both are answered from what the replica knows, without a walk: the driver leaves out the batches before
the wanted offset, of which there are at most those between two entries of the sparse index. A new
leader scans no sooner than it tells latest offsets: rows that were read must not disappear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from flussd.core.connections import Reply, RequestReceived, ScanAnswer, SendSpans, Span
from flussd.core.limits import LIMIT_SCAN_BYTES_MAX, TERM_COMMIT_HOLD_MS
from flussd.core.replica.events import BucketKey
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Role
from flussd.core.tablet.fetch import end_in
from flussd.core.tablet.keyed import NotServed
from flussd.core.tablet.parked import Waiter
from flussd.core.tablet.parts import answer_of, key_of
from flussd.core.tablet.produce import HELD_CODES
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer


@attrs.define(eq=False)
class ScanWaiter(Waiter):
    """A scan that waits for its leader's first commit; it has one key."""

    limit: int = 0
    waited: bool = False


@attrs.define(eq=False)
class Scans:
    """The scans and statistics of a tablet server."""

    server: TabletServer

    # ---- LIMIT_SCAN ----------------------------------------------------------------------------

    def received(self, event: RequestReceived) -> None:
        """Take a request in."""
        asked = event.message
        self.run(
            ScanWaiter(
                event.connection,
                event.request_id,
                self.server.now_ms + TERM_COMMIT_HOLD_MS,
                keys=(key_of(asked.table_id, asked),),
                limit=asked.limit,
            )
        )

    def run(self, waiter: ScanWaiter) -> None:
        """Answer, or wait for a commit."""
        answer = self._answer(waiter)
        if answer is None:
            self.server.parked.add(waiter)
            return
        held = answer.error_code in HELD_CODES and not waiter.waited
        self.server.emit_or_hold(SendSpans(waiter.connection, waiter.request_id, answer), held=held)

    def woken(self, waiter: ScanWaiter) -> None:
        """News of its bucket."""
        self.server.parked.remove(waiter)
        self.run(waiter)

    def timed_out(self, waiter: ScanWaiter) -> None:
        """A leader that does not commit in time is none yet."""
        waiter.waited = True
        self.run(waiter)

    def _answer(self, waiter: ScanWaiter) -> ScanAnswer | None:
        (key,) = waiter.keys
        replica = self._leader(key)
        if not isinstance(replica, Replica):
            return _refused(*replica)
        if waiter.limit < 0:
            text = f"limit: expected 0 or more, got {waiter.limit}"
            return _refused(ErrorCode.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION, text)
        if not replica.has_committed:
            text = "the leader has not committed in its term yet"
            return _refused(ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION, text) if waiter.waited else None
        return _last(replica, waiter.limit)

    def _leader(self, key: BucketKey) -> Replica | tuple[ErrorCode, str]:
        """Return the replica that leads *key* here, or why there is none."""
        replica = self.server.buckets.replicas.get(key)
        if replica is None or replica.role is not Role.LEADER:
            return self.server.buckets.why_not(key)
        return replica

    # ---- GET_TABLE_STATS -----------------------------------------------------------------------

    def stats_asked(self, event: RequestReceived) -> None:
        """Answer at once: a count is old when it arrives, whatever it waits for."""
        response = messages.GetTableStatsResponse()
        for bucket in event.message.buckets_req:
            entry = self._stats(event.message.table_id, bucket)
            response.buckets_resp.append(answer_of(entry, bucket))
        held = any(entry.error_code in HELD_CODES for entry in response.buckets_resp)
        self.server.emit_or_hold(Reply(event.connection, event.request_id, response), held=held)

    def _stats(self, table_id: int, bucket: messages.PbTableStatsReqForBucket) -> Any:
        key = key_of(table_id, bucket)
        replica = self._leader(key)
        if not isinstance(replica, Replica):
            code, text = replica
            return messages.PbTableStatsRespForBucket(error_code=int(code), error_message=text)
        if self.server.keyed.has_primary_key(table_id):
            return self._row_count(key)
        # What a new leader found will be committed: a count must not fall until then.
        end_offset = max(replica.high_watermark, replica.term_start_offset)
        row_count = max(0, end_offset - replica.log.start_offset)
        return messages.PbTableStatsRespForBucket(row_count=row_count)

    def _row_count(self, key: BucketKey) -> Any:
        """How many rows a bucket of a primary-key table has, if its table tells."""
        bucket = self.server.keyed.readable(key)
        if isinstance(bucket, NotServed):
            return messages.PbTableStatsRespForBucket(
                error_code=int(bucket.code), error_message=bucket.text
            )
        row_count = bucket.row_count
        if row_count is None:
            text = "no row count: the changelog image of the table is WAL"
            code = ErrorCode.INVALID_TABLE_EXCEPTION
            return messages.PbTableStatsRespForBucket(error_code=int(code), error_message=text)
        return messages.PbTableStatsRespForBucket(row_count=row_count)


def _refused(code: ErrorCode, text: str) -> ScanAnswer:
    return ScanAnswer(error_code=int(code), error_text=text)


def _last(replica: Replica, limit: int) -> ScanAnswer:
    """The batches that hold the last *limit* offsets below the watermark, in one span a segment."""
    log, high_watermark = replica.log, replica.high_watermark
    offset = max(log.start_offset, high_watermark - limit)
    if offset >= high_watermark:
        return ScanAnswer()
    found = log.locate(offset)
    position = found.position
    spans: list[Span] = []
    verify = False
    for segment in log.segments[log.segments.index(found.segment) :]:
        end_position = end_in(replica, segment)
        if end_position > position:
            spans.append((log.file(segment), position, end_position - position))
            verify = verify or not segment.dense.knows(max(offset, segment.base_offset))
        position = 0
    size_bytes = sum(size_bytes for _, _, size_bytes in spans)
    if size_bytes > LIMIT_SCAN_BYTES_MAX:
        text = f"the last {limit} rows: expected up to {LIMIT_SCAN_BYTES_MAX} bytes, got {size_bytes}"
        return _refused(ErrorCode.RECORD_TOO_LARGE_EXCEPTION, f"{text}; fetch them instead")
    return ScanAnswer(offset, tuple(spans), verify=verify)
