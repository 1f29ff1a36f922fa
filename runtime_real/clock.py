"""Time of the real runtime: sampled once per wake-up of the hub, and one alarm a node.

Must never be read between two samples by anything that orders events: all events of one wake-up see
the same time. The hub owes it a `sample` at each wake-up, before anything else.
"""

from __future__ import annotations

import time

import attrs


@attrs.define(eq=False)
class WakeUpTime:
    """The time of the present wake-up, shared by all nodes of the process."""

    now_ms: int = attrs.Factory(lambda: time.monotonic_ns() // 1_000_000)

    def sample(self) -> int:
        """Read the monotonic clock; return its milliseconds."""
        self.now_ms = time.monotonic_ns() // 1_000_000
        return self.now_ms

    def sample_ns(self) -> int:
        """Read it as `sample` does; return its nanoseconds."""
        now_ns = time.monotonic_ns()
        self.now_ms = now_ns // 1_000_000
        return now_ns


@attrs.define(eq=False)
class NodeClock:
    """The clock port of one node."""

    time: WakeUpTime
    alarm_ms: int | None = None  # None: no alarm is set

    def now_ms(self) -> int:
        """Return the monotonic milliseconds of this wake-up."""
        return self.time.now_ms

    def wall_ms(self) -> int:
        """Return milliseconds since 1970; may jump."""
        return time.time_ns() // 1_000_000

    def wake_at(self, at_ms: int) -> None:
        """Ask for the alarm, in place of any earlier one."""
        self.alarm_ms = at_ms

    def is_due(self) -> bool:
        """Take the alarm down and return True if its time has come."""
        if self.alarm_ms is None or self.alarm_ms > self.time.now_ms:
            return False
        self.alarm_ms = None
        return True
