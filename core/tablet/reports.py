"""What a tablet server tells the coordinator, kept until it is confirmed.

The coordinator asks by a long poll that is its ping too. A report that was sent and not confirmed is
sent again; the newest report of a bucket replaces older ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from flussd.core.connections import Reply, RequestReceived
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.parked import Waiter
from flussd.core.wire import private

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer


@attrs.define(eq=False)
class ReportsWaiter(Waiter):
    """A coordinator's poll that waits for something to report."""


@attrs.define(eq=False)
class Reports:
    """Reports that the coordinator has not confirmed, by bucket, with their sequence numbers."""

    server: TabletServer
    unconfirmed: dict[BucketKey, Any] = attrs.Factory(dict)
    waiting: dict[int, ReportsWaiter] = attrs.Factory(dict)  # polls, by serial
    coordinator_wall_ms: int = 0  # as its last poll said
    _sequence: int = 0

    def leading(self, key: BucketKey, epoch: int) -> None:
        """The bucket is led, in *epoch*."""
        self._add(key, private.LEADING, epoch, "")

    def deleted(self, key: BucketKey, epoch: int) -> None:
        """The bucket's files are gone."""
        self._add(key, private.DELETED, epoch, "")

    def failed(self, key: BucketKey, text: str) -> None:
        """The bucket is in trouble; it goes on trying."""
        self._add(key, private.FAILED, -1, text)

    def _add(self, key: BucketKey, kind: int, epoch: int, text: str) -> None:
        self._sequence += 1
        report = private.BucketReport(
            sequence=self._sequence,
            kind=kind,
            table_id=key[0],
            bucket=key[2],
            leader_epoch=epoch,
            text=text,
        )
        if key[1] >= 0:
            report.partition_id = key[1]
        self.unconfirmed.pop(key, None)
        self.unconfirmed[key] = report
        waiting, self.waiting = self.waiting, {}
        for serial, waiter in waiting.items():
            if serial in self.server.parked.waiters:  # else its coordinator left
                self.server.parked.remove(waiter)
                self._answer(waiter)

    def asked(self, event: RequestReceived) -> None:
        """A poll came in: it confirms, and waits for more."""
        confirmed, self.coordinator_wall_ms = event.message.after_sequence, event.message.wall_ms
        done = [key for key, report in self.unconfirmed.items() if report.sequence <= confirmed]
        for key in done:
            del self.unconfirmed[key]
        wait_ms = min(event.message.wait_ms, 1000)
        waiter = ReportsWaiter(event.connection, event.request_id, self.server.now_ms + wait_ms)
        if self.unconfirmed:
            self._answer(waiter)
        else:
            self.server.parked.add(waiter)
            self.waiting[waiter.serial] = waiter

    def timed_out(self, waiter: ReportsWaiter) -> None:
        """Nothing to report is an answer too: we live."""
        self.waiting.pop(waiter.serial, None)
        self._answer(waiter)

    def _answer(self, waiter: ReportsWaiter) -> None:
        response = private.AwaitReportsResponse(wall_ms=self.server.wall_ms)
        response.reports.extend(self.unconfirmed.values())
        self.server.emit(Reply(waiter.connection, waiter.request_id, response))
