"""Writes on their way to one log, and how one that fails is taken back with all behind it.

Writes to one file end in order, writes to two files may not: only a prefix of ended ones counts.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import attrs

from flussd.core.files import DiskError
from flussd.core.log.log import End
from flussd.core.log.writers import Writers, WriterState

Undo: TypeAlias = tuple[int, WriterState | None]  # writer id, its state before

NO_TICKET = -1


@attrs.define(eq=False)
class Flight:
    """One write: the ends of the log around it, what to undo, and whom to tell."""

    end_before: End
    end_after: End
    ticket: int
    acks: int
    undo: list[Undo]
    base_offset: int  # to be answered
    done: bool = False
    error: DiskError | None = None


@attrs.define(eq=False)
class Flights:
    """The writes of one log, oldest first."""

    queue: deque[Flight] = attrs.Factory(deque)
    by_token: dict[int, Flight] = attrs.Factory(dict)
    error: DiskError | None = None  # of the first that failed, until it is taken back

    def add(self, token: int, flight: Flight) -> None:
        """A write begins."""
        self.queue.append(flight)
        self.by_token[token] = flight

    def ended(self, token: int, error: DiskError | None) -> list[Flight]:
        """A write ended; return those that count from now on, in order."""
        flight = self.by_token.pop(token)
        flight.done, flight.error = True, error
        if error is not None and self.error is None:
            self.error = error
        good = []
        while self.queue and self.queue[0].done and self.queue[0].error is None:
            good.append(self.queue.popleft())
        return good

    @property
    def must_cut(self) -> bool:
        """Whether a write failed and no other is on its way: time to take back."""
        return self.error is not None and not self.by_token

    def take_back(self, writers: Writers) -> list[Flight]:
        """Undo every write that does not count; return them, oldest first."""
        assert not self.by_token
        taken = list(self.queue)
        for flight in reversed(taken):
            for writer_id, before in reversed(flight.undo):
                writers.undo(writer_id, before)
        self.queue.clear()
        self.error = None
        return taken
