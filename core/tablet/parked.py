"""Requests that wait: for time, for a watermark, or for both. Each is a record, never a task.

An entry leaves when it is answered, when its connection goes, or when its time is up, whichever comes
first. The heap of deadlines may hold entries that left already; they are skipped when their time comes.
"""

from __future__ import annotations

import heapq
from typing import Any, Final

import attrs

from flussd.core.replica.events import BucketKey

DEADLINES_SLACK: Final = 1024
"""Deadlines of waiters that left, before the heap is rebuilt: 100 KiB at most."""


@attrs.define(eq=False)
class Waiter:
    """Something that waits on behalf of a request; subclasses say for what."""

    connection: int
    request_id: int
    deadline_ms: int
    serial: int = -1
    keys: tuple[BucketKey, ...] = ()


@attrs.define(eq=False)
class Parked:
    """All waiters of a server, by serial, by connection, by bucket, and by deadline."""

    waiters: dict[int, Waiter] = attrs.Factory(dict)
    by_connection: dict[int, dict[int, None]] = attrs.Factory(dict)
    by_bucket: dict[BucketKey, dict[int, None]] = attrs.Factory(dict)
    deadlines: list[tuple[int, int]] = attrs.Factory(list)
    _serial: int = 0

    def add(self, waiter: Waiter) -> None:
        """Let *waiter* wait, for its deadline and for news of its keys."""
        if waiter.serial < 0:
            self._serial += 1
            waiter.serial = self._serial
        serial = waiter.serial
        assert serial not in self.waiters
        self.waiters[serial] = waiter
        self.by_connection.setdefault(waiter.connection, {})[serial] = None
        for key in waiter.keys:
            self.by_bucket.setdefault(key, {})[serial] = None
        heapq.heappush(self.deadlines, (waiter.deadline_ms, serial))
        if len(self.deadlines) > DEADLINES_SLACK + 4 * len(self.waiters):
            self._compact()

    def remove(self, waiter: Waiter) -> None:
        """Let *waiter* go; it may be added again."""
        serial = waiter.serial
        del self.waiters[serial]
        _drop(self.by_connection, waiter.connection, serial)
        if waiter.keys:
            for key in dict.fromkeys(waiter.keys):
                _drop(self.by_bucket, key, serial)

    def on(self, key: BucketKey) -> list[Waiter]:
        """Return who waits for news of *key*, in the order in which they came."""
        return [self.waiters[serial] for serial in self.by_bucket.get(key, ())]

    def of(self, connection: int) -> list[Waiter]:
        """Return who waits on behalf of *connection*."""
        return [self.waiters[serial] for serial in self.by_connection.get(connection, ())]

    def due(self, now_ms: int) -> list[Waiter]:
        """Remove and return all whose time is up, earliest first."""
        gone = []
        while self.deadlines and self.deadlines[0][0] <= now_ms:
            _, serial = heapq.heappop(self.deadlines)
            waiter = self.waiters.get(serial)
            if waiter is not None and waiter.deadline_ms <= now_ms:
                self.remove(waiter)
                gone.append(waiter)
        return gone

    def _compact(self) -> None:
        """Drop the deadlines of those who left: most writes are answered long before theirs."""
        live = [(waiter.deadline_ms, serial) for serial, waiter in self.waiters.items()]
        self.deadlines = live
        heapq.heapify(live)

    @property
    def next_ms(self) -> int | None:
        """When the next one is due; None when nobody waits."""
        while self.deadlines and self.deadlines[0][1] not in self.waiters:
            heapq.heappop(self.deadlines)
        return self.deadlines[0][0] if self.deadlines else None


def _drop(index: dict[Any, dict[int, None]], key: Any, serial: int) -> None:
    serials = index.get(key)
    if serials is not None:
        serials.pop(serial, None)
        if not serials:
            del index[key]
