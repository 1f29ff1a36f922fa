"""Reading the list of tablet servers again when it changed: a watch is a hint, the nodes are the truth.

Compares creation ids, so that a server that left and came back between two looks is a new one. A hint
that comes during a scan begins another behind it.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs

from flussd.core.coordinator import changes as ch
from flussd.core.coordinator import layout
from flussd.core.coordinator.activation import READS_MAX
from flussd.core.coordinator.layout import Registration
from flussd.core.registry.messages import Answer, GetChildren, GetData, Operation, Outcome


class ScanEnd(enum.Enum):
    """How a scan stands after an answer."""

    GOING_ON = "more questions are in flight"
    DONE = "all registrations were read"
    FAILED = "the registry did not answer as it should"


@attrs.define(eq=False)
class Scan:
    """One scan at a time; the owner sends what `next_question` returns."""

    is_running: bool = False
    again: bool = False
    wanted: deque[tuple[int, Operation]] = attrs.Factory(deque)  # server id, or -1 for the list
    in_flight_count: int = 0
    found: dict[int, Registration] = attrs.Factory(dict)

    def begin(self) -> None:
        """Look again, now or after the scan that is running."""
        if self.is_running:
            self.again = True
            return
        self.is_running, self.again = True, False
        self.found.clear()
        self.wanted.append((-1, GetChildren(layout.SERVERS, watch=True)))

    def next_question(self) -> tuple[int, Operation] | None:
        """Return a question to send now, if there is one and it may be sent."""
        if not self.wanted or self.in_flight_count >= READS_MAX:
            return None
        self.in_flight_count += 1
        return self.wanted.popleft()

    def answered(self, server_id: int, answer: Answer) -> ScanEnd:
        """Take an answer in."""
        self.in_flight_count -= 1
        gone = server_id >= 0 and answer.outcome is Outcome.NO_NODE  # the watch tells of it
        if answer.outcome is not Outcome.OK and not gone:
            return ScanEnd.FAILED
        if server_id < 0:
            for name in answer.children:
                self.wanted.append((int(name), GetData(layout.server_path(int(name)))))
        elif not gone:
            stat = answer.stat
            assert stat is not None
            self.found[server_id] = layout.decode_registration(
                server_id, answer.data, stat.czxid, stat.version
            )
        if self.wanted or self.in_flight_count:
            return ScanEnd.GOING_ON
        self.is_running = False
        return ScanEnd.DONE

    def changes(self, known: dict[int, Registration]) -> list[ch.Change]:
        """Return what is different from what was known, once a scan is done."""
        gone: list[ch.Change] = [
            ch.ServerGone(server_id, registration.incarnation)
            for server_id, registration in known.items()
            if server_id not in self.found
        ]
        return gone + [
            ch.ServerSeen(registration)
            for server_id, registration in sorted(self.found.items())
            if known.get(server_id) != registration
        ]

    def clone(self) -> Scan:
        """Return a copy that shares nothing that changes."""
        return attrs.evolve(self, wanted=deque(self.wanted), found=dict(self.found))
