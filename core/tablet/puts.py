"""PUT_KV: rows are merged with those that are there, and what changes is appended to the log.

One batch at a time is merged and handed to its replica, in one step and in order of arrival, so that what
the next one is merged with is what the log says. The replica judges writers and sequences: of a duplicate
the merged rows are dropped, and the original end is answered. Answers wait as those of produce requests
do (produce.py). Between batches, and between the slices of a large one, others get their turn; what comes
for its bucket meanwhile waits behind it. A batch that is overtaken by events (its log was cut, its table
altered, its bucket led anew) is merged from the start again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.connections import Reply, RequestReceived
from flussd.core.kv.ids import IdsWanted
from flussd.core.kv.rules import TableRules
from flussd.core.kv.table import Merged
from flussd.core.limits import PUT_SLICE_BYTES
from flussd.core.machine import ContinueLater
from flussd.core.records.batch import read_head
from flussd.core.records.refusal import Refused
from flussd.core.replica import events as e
from flussd.core.replica.events import BucketKey
from flussd.core.slices import Slices
from flussd.core.tablet.keyed import KeyedBucket, NotServed
from flussd.core.tablet.produce import ProduceWaiter, check_acks
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

PUT_BYTES_MIN: Final = 64
"""What a put counts in a slice besides its batch."""

OVERWRITE: Final = 1
"""The agg_mode that goes past a table's merge engine; all others are its default."""


@attrs.define(eq=False)
class PutWaiter(ProduceWaiter):
    """A put whose buckets have not all answered."""

    def answer(self, index: int, news: e.AppendAnswered) -> Any:
        """Return the answer of one bucket."""
        partition_id, bucket = self.places[index]
        answer = messages.PbPutKvRespForBucket(bucket_id=bucket)
        if partition_id is not None:
            answer.partition_id = partition_id
        if news.code:
            answer.error_code, answer.error_message = int(news.code), news.text
        else:
            answer.log_end_offset = news.end_offset
        return answer

    def reply(self) -> Any:
        """Return the effect that answers the request."""
        response = messages.PutKvResponse()
        response.buckets_resp.extend(self.answers)
        return Reply(self.connection, self.request_id, response)


@attrs.frozen
class Put:
    """One batch that waits for its turn; without a batch, what of *keys* has no row is inserted."""

    ticket: int
    connection: int
    key: BucketKey
    acks: int
    wall_ms: int
    batch: bytes = b""
    targets: tuple[int, ...] = ()
    overwrites: bool = False
    keys: tuple[bytes, ...] | None = None


@attrs.define(eq=False)
class Merging:
    """A put that is merged in slices, and of what: if that is not so any more, the merge is void."""

    put: Put
    bucket: KeyedBucket
    rules: TableRules
    cut_count: int
    slices: Slices[Merged]


@attrs.define(eq=False)
class Puts:
    """The batches of a server that are not merged yet, in order of arrival.

    A bucket has one that is being merged, or one that lacks ids, or none; others wait behind it.
    """

    server: TabletServer
    queue: deque[Put | Merging] = attrs.Factory(deque)
    merging: dict[BucketKey, Merging] = attrs.Factory(dict)  # those that have a slice left
    lacking: dict[BucketKey, Put] = attrs.Factory(dict)  # those that wait for ids
    behind: dict[BucketKey, deque[Put]] = attrs.Factory(dict)  # those behind one of either kind
    token: int = -1  # of our next turn, while we wait for one

    def received(self, event: RequestReceived) -> None:
        """Take a request in."""
        server, asked = self.server, event.message
        if not check_acks(server, event, asked.acks):
            return
        if not asked.buckets_req:
            server.emit(Reply(event.connection, event.request_id, messages.PutKvResponse()))
            return
        waiter = PutWaiter(
            event.connection,
            event.request_id,
            server.now_ms + max(0, asked.timeout_ms),
            answers=[None] * len(asked.buckets_req),
            places=[_place(bucket) for bucket in asked.buckets_req],
            table_id=asked.table_id,
        )
        targets = tuple(asked.target_columns)
        puts = [
            Put(
                server.produces.ticket(waiter, index),
                event.connection,
                (asked.table_id, -1 if partition_id is None else partition_id, bucket),
                asked.acks,
                event.wall_ms,
                asked.buckets_req[index].records,
                targets,
                asked.agg_mode == OVERWRITE,
            )
            for index, (partition_id, bucket) in enumerate(waiter.places)
        ]
        server.parked.add(waiter)
        self.take(puts)

    def take(self, puts: list[Put]) -> None:
        """Put these, now or when it is their turn; somebody waits for their tickets."""
        self.queue.extend(puts)
        if self.token < 0:
            self.go_on()

    def go_on(self) -> None:
        """Put what waits, until the slice is full; then wait for our turn."""
        self.token, size_bytes = 0, 0  # what happens meanwhile is put behind
        while self.queue and size_bytes < PUT_SLICE_BYTES:
            put = self.queue.popleft()
            if isinstance(put, Merging):
                self._merge_on(put)
                size_bytes += PUT_SLICE_BYTES
            elif put.ticket in self.server.produces.by_ticket:  # else its time was up, or its client left
                self._put(put)
                size_bytes += PUT_BYTES_MIN + len(put.batch)
        self.token = -1
        if self.queue:
            self.token = self.server.next_token()
            self.server.emit(ContinueLater(self.token))

    def got_ids(self, key: BucketKey) -> None:
        """A bucket has more ids, or will not get any: those that wait for them are the next."""
        put = self.lacking.pop(key, None)
        if put is not None:
            self._release(key)
            self.queue.appendleft(put)
        if self.token < 0:
            self.go_on()

    def refuse_lacking(self, key: BucketKey, code: ErrorCode, text: str) -> None:
        """A bucket gets no ids now: its clients may ask again."""
        put = self.lacking.pop(key, None)
        if put is not None:
            for refused in (put, *self.behind.pop(key, ())):
                self._refuse(refused, code, text)

    def _put(self, put: Put) -> None:
        """Merge and append one batch, or refuse it, or let it wait for its turn, or for ids."""
        server = self.server
        if put.key in self.merging or put.key in self.lacking:
            self.behind.setdefault(put.key, deque()).append(put)
            return
        if (put.connection, put.key) in server.produces.holding:
            server.produces.refuse_behind(put.ticket)
            return
        bucket = server.keyed.writable(put.key)
        if isinstance(bucket, NotServed):
            self._refuse(put, bucket.code, bucket.text)
            return
        rules = server.keyed.rules_of(put.key[0])
        try:
            slices = self._slices(put, bucket, rules)
        except Refused as refused:
            self._refuse(put, refused.code, refused.text)
        else:
            if slices is None:
                server.produces.answered(e.AppendAnswered(put.ticket, -1))
            else:
                self._merge(Merging(put, bucket, rules, bucket.table.cut_count, slices))

    def _slices(self, put: Put, bucket: KeyedBucket, rules: TableRules) -> Slices[Merged] | None:
        """Return the merge of a put; None: nothing of it is left to do."""
        batch, targets = put.batch, put.targets
        if put.keys is not None:
            missing = bucket.table.missing_rows(rules, put.keys)
            if missing is None:
                return None
            batch, targets = missing.batch, missing.targets
        return bucket.table.merging(
            rules,
            memoryview(batch),
            targets,
            overwrite=put.overwrites,
            ids=bucket.ids,
            slice_records=self.server.config.merge_slice_records,
        )

    def _merge_on(self, merging: Merging) -> None:
        """Merge the next slice, unless things have changed; then begin again."""
        put = merging.put
        del self.merging[put.key]
        is_awaited = put.ticket in self.server.produces.by_ticket
        if is_awaited and self._is_valid(merging):
            self._merge(merging)
        elif is_awaited:
            self._put(put)
        self._release(put.key)

    def _is_valid(self, merging: Merging) -> bool:
        put, keyed = merging.put, self.server.keyed
        return (
            keyed.writable(put.key) is merging.bucket
            and keyed.rules_of(put.key[0]) is merging.rules
            and merging.bucket.table.cut_count == merging.cut_count
            and (put.connection, put.key) not in self.server.produces.holding
        )

    def _merge(self, merging: Merging) -> None:
        """Merge one slice; append when it was the last one."""
        put = merging.put
        try:
            next(merging.slices)
        except StopIteration as end:
            merged: Merged = end.value
            self.server.keyed.append(put.key, merged, _asked(put, merged.log_batch))
        except Refused as refused:
            self._refuse(put, refused.code, refused.text)
        except IdsWanted as wanted:
            self.lacking[put.key] = put
            self.server.auto_ids.want(put.key, wanted.count)
        else:
            self.merging[put.key] = merging
            self.queue.append(merging)

    def _release(self, key: BucketKey) -> None:
        """Let those behind one that is done, or void, be the next."""
        if key not in self.merging and key not in self.lacking:
            self.queue.extendleft(reversed(self.behind.pop(key, deque())))

    def _refuse(self, put: Put, code: ErrorCode, text: str) -> None:
        self.server.produces.answered(e.AppendAnswered(put.ticket, -1, code, text))


def _asked(put: Put, log_batch: bytes) -> e.AppendAsked:
    """Return what the replica is asked: to append one changelog batch, and to tell where."""
    view = memoryview(log_batch)
    head = read_head(view, 0)
    assert head is not None
    assert head.size_bytes == len(view)
    return e.AppendAsked(put.ticket, put.acks, view, (head,), put.wall_ms, wants_place=True)


def _place(bucket: Any) -> tuple[int | None, int]:
    return bucket.partition_id if bucket.HasField("partition_id") else None, bucket.bucket_id
