"""PRODUCE_LOG: a request's buckets go to their replicas, their answers come back into one reply.

Puts (puts.py) wait here, too: what a bucket's answer and the reply are is the business of their waiters.
Waits for every bucket, at most the request's own time; what comes later finds no ticket and is ignored
by rule. Answers that clients resend at once are held for a moment (architecture, section 9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from flussd.core.connections import (
    ProduceAnswer,
    ProduceReceived,
    ReplyError,
    ReplyProduce,
    RequestReceived,
)
from flussd.core.replica import events as e
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.parked import Waiter
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

HELD_CODES = frozenset(
    {
        ErrorCode.LOG_STORAGE_EXCEPTION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION,
        ErrorCode.NOT_ENOUGH_REPLICAS_EXCEPTION,
        ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION,
    }
)
"""Clients send these again at once, hundreds of times a second, unless the answer takes its time."""


@attrs.define(eq=False)
class ProduceWaiter(Waiter):
    """A request to append whose buckets have not all answered; *tickets* are those that have not."""

    answers: list[Any] = attrs.Factory(list)
    tickets: dict[int, int] = attrs.Factory(dict)  # ticket -> index of its answer
    places: list[tuple[int | None, int]] = attrs.Factory(list)  # partition id, bucket of each answer
    table_id: int = -1

    def answer(self, index: int, news: e.AppendAnswered) -> Any:
        """Return the answer of one bucket; it has the field error_code."""
        partition_id, bucket = self.places[index]
        return ProduceAnswer(partition_id, bucket, news.base_offset, int(news.code), news.text)

    def reply(self) -> Any:
        """Return the effect that answers the request; all its buckets have answered."""
        return ReplyProduce(self.connection, self.request_id, tuple(self.answers))


@attrs.define(eq=False)
class HeldReply(Waiter):
    """An answer that is complete and waits for its time."""

    effect: Any = None
    refused: tuple[BucketKey, ...] = ()  # buckets whose batches it refuses


@attrs.define(eq=False)
class Produces:
    """The produce requests of a tablet server that wait."""

    server: TabletServer
    by_ticket: dict[int, ProduceWaiter] = attrs.Factory(dict)
    holding: dict[tuple[int, BucketKey], int] = attrs.Factory(dict)  # held refusals by connection, bucket
    expired_count: int = 0  # those whose time was up
    _ticket: int = 0

    def received(self, event: ProduceReceived) -> None:
        """Take a request in."""
        server = self.server
        if not check_acks(server, event, event.acks):
            return
        if not event.buckets:
            server.emit(ReplyProduce(event.connection, event.request_id, ()))
            return
        waiter = ProduceWaiter(
            event.connection,
            event.request_id,
            server.now_ms + max(0, event.timeout_ms),
            answers=[None] * len(event.buckets),
            places=[(bucket.partition_id, bucket.bucket) for bucket in event.buckets],
            table_id=event.table_id,
        )
        asks: list[tuple[BucketKey, e.AppendAsked]] = []
        for index, bucket in enumerate(event.buckets):
            if bucket.problem is not None:
                code = ErrorCode.CORRUPT_RECORD_EXCEPTION
                waiter.answers[index] = waiter.answer(
                    index, e.AppendAnswered(-1, -1, code, bucket.problem_text)
                )
                continue
            ticket = self.ticket(waiter, index)
            partition_id = -1 if bucket.partition_id is None else bucket.partition_id
            key = (event.table_id, partition_id, bucket.bucket)
            asked = e.AppendAsked(ticket, event.acks, bucket.records, bucket.heads, event.wall_ms)
            asks.append((key, asked))
        if not waiter.tickets:
            self._reply(waiter)
        has_rows = server.keyed.has_primary_key(event.table_id)
        for key, asked in asks:
            if self.holding and (event.connection, key) in self.holding:
                self.refuse_behind(asked.ticket)
            elif has_rows:
                text = f"table {event.table_id} has a primary key: its log is written by PUT_KV"
                self.answered(e.AppendAnswered(asked.ticket, -1, ErrorCode.INVALID_TABLE_EXCEPTION, text))
            else:
                server.buckets.append(key, asked)
        if waiter.tickets:
            server.parked.add(waiter)

    def ticket(self, waiter: ProduceWaiter, index: int) -> int:
        """Return a ticket for the answer *index* of a waiter."""
        self._ticket += 1
        waiter.tickets[self._ticket] = index
        self.by_ticket[self._ticket] = waiter
        return self._ticket

    def refuse_behind(self, ticket: int) -> None:
        """Refuse a batch behind one whose refusal is still held.

        Taken at once, it and what follows could push the refused one, which may be in the log, out of
        the window before its client can send it again (seed 208).
        """
        code, text = ErrorCode.NOT_LEADER_OR_FOLLOWER, "an earlier batch of this bucket was refused"
        self.answered(e.AppendAnswered(ticket, -1, code, text))

    def held(self, waiter: HeldReply) -> None:
        """A refusal is held: what comes behind it is refused, too."""
        for key in waiter.refused:
            place = (waiter.connection, key)
            self.holding[place] = self.holding.get(place, 0) + 1

    def let_go(self, waiter: HeldReply) -> None:
        """A held refusal is sent, or its client left."""
        for key in waiter.refused:
            place = (waiter.connection, key)
            self.holding[place] -= 1
            if not self.holding[place]:
                del self.holding[place]

    def answered(self, news: e.AppendAnswered) -> None:
        """A bucket's part is done."""
        waiter = self.by_ticket.pop(news.ticket, None)
        if waiter is None:
            return  # its time was up, or its client left
        index = waiter.tickets.pop(news.ticket)
        waiter.answers[index] = waiter.answer(index, news)
        if not waiter.tickets:
            if waiter.serial >= 0:
                self.server.parked.remove(waiter)
            self._reply(waiter)

    def timed_out(self, waiter: ProduceWaiter) -> None:
        """Answer with what is known; the batches may still be acknowledged to a retry."""
        self.expired_count += 1
        code, text = ErrorCode.REQUEST_TIME_OUT, "the batch is not acknowledged in the request's time"
        for ticket, index in waiter.tickets.items():
            del self.by_ticket[ticket]
            waiter.answers[index] = waiter.answer(index, e.AppendAnswered(ticket, -1, code, text))
        waiter.tickets.clear()
        self._reply(waiter)

    def forget(self, waiter: ProduceWaiter) -> None:
        """Its client left."""
        for ticket in waiter.tickets:
            del self.by_ticket[ticket]
        waiter.tickets.clear()

    def _reply(self, waiter: ProduceWaiter) -> None:
        assert not waiter.tickets
        refused = [
            (waiter.table_id, -1 if partition_id is None else partition_id, bucket)
            for (partition_id, bucket), answer in zip(waiter.places, waiter.answers, strict=True)
            if answer.error_code in HELD_CODES
        ]
        if refused:
            self.server.emit_or_hold(waiter.reply(), held=True, refused=tuple(refused))
        else:
            self.server.emit(waiter.reply())


def check_acks(server: TabletServer, event: ProduceReceived | RequestReceived, acks: int) -> bool:
    """Refuse a request whose acks are none; return whether they are some."""
    if acks in (-1, 0, 1):
        return True
    text = f"required acks: expected -1, 0 or 1, got {acks}"
    server.emit(ReplyError(event.connection, event.request_id, ErrorCode.INVALID_REQUIRED_ACKS, text))
    return False
