"""SCAN_KV: all rows of a bucket in key order, in as many calls as it takes.

A scan that one answer does not end is a session: a snapshot of the rows, the number of the next call, and
a waiter that ends it when nobody has called for long. A session belongs to no connection. What is wrong
with a call is told in the body of its answer; a call out of order ends its session. Whoever opened one
that is over by its time, or by the end of our leadership, is told that it expired, while we remember.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from flussd.core.connections import Reply, RequestReceived
from flussd.core.kv.rows import Snapshot
from flussd.core.kv.table import KvTable
from flussd.core.limits import (
    EXPIRED_SCANNERS,
    SCAN_KV_BYTES_MAX,
    SCANNER_TTL_MS,
    SCANNERS_PER_BUCKET,
    SCANNERS_PER_SERVER,
)
from flussd.core.records.values import build_value_batch
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.parked import Waiter
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer


@attrs.define(eq=False)
class ScannerWaiter(Waiter):
    """A session that waits for its next call."""

    scanner_id: bytes = b""


@attrs.define(eq=False)
class Scanner:
    """One session; *values* goes on behind what was sent, and *next_value* is the first of that."""

    scanner_id: bytes
    key: BucketKey
    snapshot: Snapshot
    values: Iterator[bytes]
    left_count: int
    waiter: ScannerWaiter
    next_value: bytes | None = None
    next_call: int = 1

    def take(self, size_bytes: int) -> list[bytes]:
        """Return the next rows, one at least and no more than fit."""
        taken: list[bytes] = []
        while self.next_value is not None and (not taken or len(self.next_value) <= size_bytes):
            taken.append(self.next_value)
            size_bytes -= len(self.next_value)
            self.left_count -= 1
            self.next_value = next(self.values, None) if self.left_count else None
        return taken


@attrs.define(eq=False)
class KvScans:
    """The sessions of a tablet server."""

    server: TabletServer
    scanners: dict[bytes, Scanner] = attrs.Factory(dict)
    by_bucket: dict[BucketKey, dict[bytes, None]] = attrs.Factory(dict)
    expired: OrderedDict[bytes, str] = attrs.Factory(OrderedDict)  # -> why, oldest first
    _serial: int = 0

    # ---- calls ---------------------------------------------------------------------------------

    def received(self, event: RequestReceived) -> None:
        """Take a call in: it opens a session, goes on with one, or closes it."""
        asked = event.message
        opens = asked.HasField("bucket_scan_req")
        if opens == asked.HasField("scanner_id"):
            response = _wrong("expected either scanner_id or bucket_scan_req")
        elif opens and asked.close_scanner:
            response = _wrong("close_scanner: expected a scanner_id with it")
        elif not asked.close_scanner and asked.batch_size_bytes <= 0:
            response = _wrong(f"batch_size_bytes: expected 1 or more, got {asked.batch_size_bytes}")
        elif opens and asked.call_seq_id:
            response = _wrong(f"call_seq_id: expected 0 for a new scan, got {asked.call_seq_id}")
        elif opens:
            self.server.reads.received(event)  # it waits until the rows are there
            return
        else:
            response = self._go_on(asked)
        self.server.emit(Reply(event.connection, event.request_id, response))

    def open(self, key: BucketKey, table: KvTable, asked: Any) -> Any:
        """Begin to scan a bucket; return the answer."""
        log_offset = self.server.buckets.replicas[key].high_watermark
        in_bucket = len(self.by_bucket.get(key, ()))
        if in_bucket >= SCANNERS_PER_BUCKET or len(self.scanners) >= SCANNERS_PER_SERVER:
            text = f"open scans: expected less than {SCANNERS_PER_BUCKET} of the bucket and less than"
            text += f" {SCANNERS_PER_SERVER} of the server, got {in_bucket} and {len(self.scanners)}"
            return _refused(ErrorCode.TOO_MANY_SCANNERS, text)
        scanner = self._begin(key, table.rows(), asked.bucket_scan_req.limit)
        if scanner is None:
            return messages.ScanKvResponse(has_more_results=False, log_offset=log_offset)
        response = self._answer(scanner, asked.batch_size_bytes)
        response.log_offset = log_offset
        return response

    def _begin(self, key: BucketKey, snapshot: Snapshot, limit: int) -> Scanner | None:
        """Return a session of *snapshot*; None when there is nothing in it. A limit below 1 is none."""
        if not snapshot.row_count:
            snapshot.close()
            return None
        self._serial += 1
        scanner_id = self.server.chance.to_bytes(8, "big") + self._serial.to_bytes(8, "big")
        count = min(limit, snapshot.row_count) if limit > 0 else snapshot.row_count
        values = iter(snapshot)
        waiter = ScannerWaiter(-1, -1, 0, scanner_id=scanner_id)
        scanner = Scanner(scanner_id, key, snapshot, values, count, waiter, next(values))
        self.scanners[scanner_id] = scanner
        self.by_bucket.setdefault(key, {})[scanner_id] = None
        return scanner

    def _go_on(self, asked: Any) -> Any:
        """Answer a call of a session that may be open."""
        scanner = self.scanners.get(asked.scanner_id)
        if asked.close_scanner:
            if scanner is not None:
                self._end(scanner)
            return messages.ScanKvResponse(scanner_id=asked.scanner_id, has_more_results=False)
        if scanner is None and asked.scanner_id in self.expired:
            return _refused(ErrorCode.SCANNER_EXPIRED, self.expired[asked.scanner_id])
        if scanner is None:
            return _refused(ErrorCode.UNKNOWN_SCANNER_ID, f"no such scan is open: {asked.scanner_id.hex()}")
        self.server.parked.remove(scanner.waiter)
        if not asked.HasField("call_seq_id") or asked.call_seq_id != scanner.next_call:
            self._end(scanner)
            return _wrong(f"call_seq_id: expected {scanner.next_call}, got {asked.call_seq_id}")
        scanner.next_call += 1
        return self._answer(scanner, asked.batch_size_bytes)

    def _answer(self, scanner: Scanner, size_bytes: int) -> Any:
        """Send the next rows of a session that does not wait."""
        values = scanner.take(min(size_bytes, SCAN_KV_BYTES_MAX))
        has_more = scanner.next_value is not None
        if has_more:
            scanner.waiter.deadline_ms = self.server.now_ms + SCANNER_TTL_MS
            self.server.parked.add(scanner.waiter)
        else:
            self._end(scanner)
        records = build_value_batch(values)
        return messages.ScanKvResponse(
            scanner_id=scanner.scanner_id, has_more_results=has_more, records=records
        )

    # ---- the end -------------------------------------------------------------------------------

    def _end(self, scanner: Scanner) -> None:
        if scanner.waiter.serial in self.server.parked.waiters:
            self.server.parked.remove(scanner.waiter)
        scanner.snapshot.close()
        del self.scanners[scanner.scanner_id]
        of_bucket = self.by_bucket[scanner.key]
        del of_bucket[scanner.scanner_id]
        if not of_bucket:
            del self.by_bucket[scanner.key]

    def _expire(self, scanner: Scanner, why: str) -> None:
        self._end(scanner)
        self.expired[scanner.scanner_id] = why
        while len(self.expired) > EXPIRED_SCANNERS:
            self.expired.popitem(last=False)

    def timed_out(self, waiter: ScannerWaiter) -> None:
        """Nobody called in time."""
        self._expire(self.scanners[waiter.scanner_id], f"no call came within {SCANNER_TTL_MS} ms")

    def left(self, key: BucketKey) -> None:
        """A bucket is led no more: its rows may be others by now."""
        for scanner_id in list(self.by_bucket.get(key, ())):
            self._expire(self.scanners[scanner_id], "the bucket's leader changed")


def _refused(code: ErrorCode, text: str) -> Any:
    return messages.ScanKvResponse(error_code=int(code), error_message=text)


def _wrong(text: str) -> Any:
    return _refused(ErrorCode.INVALID_SCAN_REQUEST, text)
