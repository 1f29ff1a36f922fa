"""LOOKUP, PREFIX_LOOKUP and what else reads the rows of primary-key tables.

Reads see what is committed, at the leader alone. Where a bucket's rows are being restored, or its leader
has not committed in its term yet, they wait a moment: clients that are refused ask again at once. A lookup
that inserts what is missing is a put (puts.py), and is answered out of the pre-write buffer as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from flussd.core.connections import Reply, ReplyError, RequestReceived
from flussd.core.kv.table import KvTable
from flussd.core.limits import LOOKUP_BYTES_MAX, TERM_COMMIT_HOLD_MS
from flussd.core.records.values import build_value_batch
from flussd.core.replica import events as e
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.keyed import NotServed
from flussd.core.tablet.parked import Waiter
from flussd.core.tablet.parts import answer_of, key_of
from flussd.core.tablet.produce import HELD_CODES, ProduceWaiter, check_acks
from flussd.core.tablet.puts import Put
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.keyed import Keyed
    from flussd.core.tablet.tablet import TabletServer

Found: TypeAlias = dict[BucketKey, KvTable | NotServed]
"""The rows of the buckets of a request, or why there are none."""

TOO_LARGE = f"the values of one request: expected up to {LOOKUP_BYTES_MAX} bytes, got more"


@attrs.define(eq=False)
class RowsWaiter(Waiter):
    """A read that waits until the rows of its buckets are there."""

    event: RequestReceived | None = None
    waited: bool = False


@attrs.define(eq=False)
class InsertWaiter(ProduceWaiter):
    """A lookup that inserts missing rows, and waits for its buckets."""

    keyed: Keyed = attrs.field(kw_only=True)
    asked: Any = None
    left_bytes: int = LOOKUP_BYTES_MAX

    def answer(self, index: int, news: e.AppendAnswered) -> Any:
        """Return the answer of one bucket: all its keys have rows now."""
        bucket = self.asked.buckets_req[index]
        answer = answer_of(messages.PbLookupRespForBucket(), bucket)
        if news.code:
            return _refuse(answer, news.code, news.text)
        led = self.keyed.writable(key_of(self.table_id, bucket))
        if isinstance(led, NotServed):
            return _refuse(answer, led.code, led.text)
        self.left_bytes -= _look_up(answer, led.table.newest, bucket.keys, self.left_bytes)
        return answer

    def reply(self) -> Any:
        """Return the effect that answers the request."""
        response = messages.LookupResponse()
        response.buckets_resp.extend(self.answers)
        return Reply(self.connection, self.request_id, response)


@attrs.define(eq=False)
class Reads:
    """The reads of rows of a tablet server."""

    server: TabletServer

    # ---- waiting -------------------------------------------------------------------------------

    def received(self, event: RequestReceived) -> None:
        """Take a request in."""
        if event.api_key == ApiKey.LOOKUP and event.message.insert_if_not_exists:
            self._insert(event)
            return
        keys = self.KEYS[event.api_key](event.message)
        due_ms = self.server.now_ms + TERM_COMMIT_HOLD_MS
        self._run(RowsWaiter(event.connection, event.request_id, due_ms, keys=keys, event=event))

    def woken(self, waiter: RowsWaiter) -> None:
        """News of one of its buckets."""
        self.server.parked.remove(waiter)
        self._run(waiter)

    def timed_out(self, waiter: RowsWaiter) -> None:
        """Rows that are not there in time are refused."""
        waiter.waited = True
        self._run(waiter)

    def _run(self, waiter: RowsWaiter) -> None:
        """Answer, or wait for a bucket whose rows may be there soon."""
        assert waiter.event is not None
        found = {key: self.server.keyed.readable(key) for key in waiter.keys}
        if not waiter.waited and any(isinstance(one, NotServed) and one.may_pass for one in found.values()):
            self.server.parked.add(waiter)
            return
        response, codes = self.ANSWER[waiter.event.api_key](self, waiter.event.message, found)
        reply = Reply(waiter.connection, waiter.request_id, response)
        held = not waiter.waited and any(code in HELD_CODES for code in codes)
        self.server.emit_or_hold(reply, held=held)

    # ---- answers -------------------------------------------------------------------------------

    def _lookup(self, asked: Any, found: Found) -> tuple[Any, list[int]]:
        def fill(answer: Any, table: KvTable, keys: Any, left_bytes: int) -> int:
            return _look_up(answer, table.get, keys, left_bytes)

        return _filled(messages.LookupResponse(), asked, found, fill)

    def _prefix_lookup(self, asked: Any, found: Found) -> tuple[Any, list[int]]:
        return _filled(messages.PrefixLookupResponse(), asked, found, _look_prefixes_up)

    def _limit_scan(self, asked: Any, found: Found) -> tuple[Any, list[int]]:
        response = messages.LimitScanResponse(is_log_table=False)
        (table,) = found.values()
        if isinstance(table, NotServed):
            _refuse(response, table.code, table.text)
            return response, [response.error_code]
        values = table.first(asked.limit)
        if sum(map(len, values)) > LOOKUP_BYTES_MAX:
            _refuse(response, ErrorCode.RECORD_TOO_LARGE_EXCEPTION, TOO_LARGE)
        elif values:
            response.records = build_value_batch(values)
        return response, []

    def _open_scan(self, asked: Any, found: Found) -> tuple[Any, list[int]]:
        ((key, table),) = found.items()
        if isinstance(table, NotServed):
            response = messages.ScanKvResponse()
            _refuse(response, table.code, table.text)
            return response, [response.error_code]
        return self.server.kv_scans.open(key, table, asked), []

    # ---- lookups that insert -------------------------------------------------------------------

    def _insert(self, event: RequestReceived) -> None:
        server, asked = self.server, event.message
        if not asked.HasField("acks") or not asked.HasField("timeout_ms"):
            text = "insert_if_not_exists: expected acks and timeout_ms with it"
            server.emit(
                ReplyError(event.connection, event.request_id, ErrorCode.UNKNOWN_SERVER_ERROR, text)
            )
            return
        if not check_acks(server, event, asked.acks):
            return
        if not asked.buckets_req:
            server.emit(Reply(event.connection, event.request_id, messages.LookupResponse()))
            return
        keys = [key_of(asked.table_id, bucket) for bucket in asked.buckets_req]
        waiter = InsertWaiter(
            event.connection,
            event.request_id,
            server.now_ms + max(0, asked.timeout_ms),
            answers=[None] * len(keys),
            places=[(key[1] if key[1] >= 0 else None, key[2]) for key in keys],
            table_id=asked.table_id,
            keyed=server.keyed,
            asked=asked,
        )
        puts = [
            Put(
                server.produces.ticket(waiter, index),
                event.connection,
                keys[index],
                asked.acks,
                event.wall_ms,
                keys=tuple(bucket.keys),
            )
            for index, bucket in enumerate(asked.buckets_req)
        ]
        server.parked.add(waiter)
        server.puts.take(puts)

    KEYS: ClassVar[dict[int, Callable[[Any], tuple[BucketKey, ...]]]] = {
        ApiKey.LOOKUP: lambda asked: tuple(key_of(asked.table_id, one) for one in asked.buckets_req),
        ApiKey.PREFIX_LOOKUP: lambda asked: tuple(key_of(asked.table_id, one) for one in asked.buckets_req),
        ApiKey.LIMIT_SCAN: lambda asked: (key_of(asked.table_id, asked),),
        ApiKey.SCAN_KV: lambda asked: (key_of(asked.bucket_scan_req.table_id, asked.bucket_scan_req),),
    }
    ANSWER: ClassVar[dict[int, Callable[[Reads, Any, Any], tuple[Any, list[int]]]]] = {
        ApiKey.LOOKUP: _lookup,
        ApiKey.PREFIX_LOOKUP: _prefix_lookup,
        ApiKey.LIMIT_SCAN: _limit_scan,
        ApiKey.SCAN_KV: _open_scan,
    }


def _refuse(answer: Any, code: ErrorCode, text: str) -> Any:
    answer.error_code, answer.error_message = int(code), text
    return answer


def _filled(
    response: Any, asked: Any, found: Found, fill: Callable[[Any, KvTable, Any, int], int]
) -> tuple[Any, list[int]]:
    """Answer each bucket of a lookup: *fill* adds what its keys find, and returns how large that is."""
    left_bytes = LOOKUP_BYTES_MAX
    for bucket in asked.buckets_req:
        answer = answer_of(response.buckets_resp.add(), bucket)
        table = found[key_of(asked.table_id, bucket)]
        if isinstance(table, NotServed):
            _refuse(answer, table.code, table.text)
        else:
            left_bytes -= fill(answer, table, bucket.keys, left_bytes)
    return response, [answer.error_code for answer in response.buckets_resp]


def _look_up(answer: Any, get: Callable[[bytes], bytes | None], keys: Any, left_bytes: int) -> int:
    """Put the values of *keys* into an answer, or that they are too large; return their size."""
    values = [get(key) for key in keys]
    size_bytes = sum([len(value) for value in values if value is not None])
    if size_bytes > left_bytes:
        _refuse(answer, ErrorCode.RECORD_TOO_LARGE_EXCEPTION, TOO_LARGE)
        return 0
    for value in values:
        entry = answer.values.add()
        if value is not None:
            entry.values = value
    return size_bytes


def _look_prefixes_up(answer: Any, table: KvTable, prefixes: Any, left_bytes: int) -> int:
    """Put the values under *prefixes* into an answer, or that they are too large; return their size."""
    size_bytes = 0
    for prefix in prefixes:
        values = table.with_prefix(prefix)
        size_bytes += sum(map(len, values))
        if size_bytes > left_bytes:
            answer.ClearField("value_lists")
            _refuse(answer, ErrorCode.RECORD_TOO_LARGE_EXCEPTION, TOO_LARGE)
            break
        answer.value_lists.add(values=values)
    return size_bytes
