"""The clocks of one machine: monotonic and wall time, each with its own offset, drifting together.

A reboot starts the monotonic clock anew; a restarted process finds it running. The wall clock may jump.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.world import MS, World

EPOCH_MS = 1_749_999_590_000
"""The wall clock of a machine without offset at the start of a run: ten seconds before 15:00 UTC.

So every run passes the end of an hour, and midnight where that is at 15:00 UTC.
"""

_MILLION = 1_000_000


@attrs.define(eq=False, repr=False)
class HostClock:
    """What a host's processes read; *drift_ppm* is how much faster it runs than the world."""

    world: World
    draws: Stream
    drift_ppm: int = 0
    base_ms: int = 0  # the monotonic clock at since_us
    since_us: int = 0
    wall_offset_ms: int = 0

    def boot(self) -> None:
        """The host starts: its monotonic clock begins somewhere small."""
        self.base_ms, self.since_us = self.draws.between(1, 60_000), self.world.now_us
        self.drift_ppm = self.draws.between(-200, 200)

    def now_ms(self) -> int:
        """Return the monotonic clock."""
        return self.base_ms + self._passed_ms()

    def _passed_ms(self) -> int:
        return (self.world.now_us - self.since_us) * (_MILLION + self.drift_ppm) // (_MILLION * MS)

    def wall_ms(self) -> int:
        """Return the wall clock."""
        drifted_us = self.world.now_us * (_MILLION + self.drift_ppm) // _MILLION
        return EPOCH_MS + drifted_us // MS + self.wall_offset_ms

    def us_of(self, at_ms: int) -> int:
        """Return the first moment of the world at which the monotonic clock shows *at_ms*."""
        wanted = (at_ms - self.base_ms) * _MILLION * MS
        return self.since_us + -(-wanted // (_MILLION + self.drift_ppm))


@attrs.define(eq=False, repr=False)
class ProcessClock:
    """The clock port of one process: the host's clocks, and the one alarm."""

    host: HostClock
    ring: Callable[[int], None]  # called with the number of the alarm, which may be an old one
    alarm: int = 0

    def now_ms(self) -> int:
        """Return monotonic milliseconds."""
        return self.host.now_ms()

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return self.host.wall_ms()

    def wake_at(self, at_ms: int) -> None:
        """Ask for the alarm, up to 2 ms late; replaces any earlier one."""
        self.alarm += 1
        late_us = self.host.draws.long_tail(0, 2 * MS)
        self.host.world.at(self.host.us_of(at_ms) + late_us, self.ring, self.alarm)
