"""What a driver counts while somebody wants to know: requests by API, their times, and slow steps.

Plain integers, changed on the hot path and read by whoever publishes them; it must never change what a
machine does, and costs a comparison where there is none. It has no clock of its own: the runtime owes
it `now_ns`, and a `slow` that does not call the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.edge.budget import Budget

SAMPLES_MAX: Final = 1024
"""Latest values of which quantiles are made, as upstream's histograms keep them."""

SLOW_STEP_NS: Final = 2_000_000
"""Time after which a step counts as slow: all other connections waited that long."""


@attrs.define(eq=False)
class ApiCounts:
    """The requests of one API since the start; *times_ns* are of the latest answered ones."""

    request_count: int = 0
    answer_count: int = 0
    error_count: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    times_ns: deque[int] = attrs.Factory(lambda: deque(maxlen=SAMPLES_MAX))


@attrs.define(eq=False)
class Meter:
    """The counts of one driver; *slow* gets the event that a slow step began with, and its time."""

    now_ns: Callable[[], int]
    slow: Callable[[Any, int], None]
    apis: dict[int, ApiCounts]  # one for each API that is served; others are not counted
    unserved_count: int = 0
    slow_step_count: int = 0

    def received(self, budget: Budget, request_id: int, frame: memoryview, began_ns: int) -> None:
        """Count a request that came in whole at *began_ns*."""
        counts = self.apis.get(frame[0] << 8 | frame[1])
        if counts is None:
            self.unserved_count += 1
            return
        counts.request_count += 1
        counts.request_bytes += len(frame)
        # A client may use an id twice; then only the later one is timed.
        budget.timed[request_id] = (counts, began_ns)

    def answered(self, budget: Budget, request_id: int, answer_bytes: int, *, failed: bool) -> None:
        """Count an answer on its way to the network."""
        timed = budget.timed.pop(request_id, None)
        if timed is None:
            return
        counts, began_ns = timed
        counts.answer_count += 1
        counts.answer_bytes += answer_bytes
        counts.times_ns.append(self.now_ns() - began_ns)
        if failed:
            counts.error_count += 1

    def ended(self, event: Any, began_ns: int) -> None:
        """Take in that the driver is done with *event* and what followed from it at once."""
        took_ns = self.now_ns() - began_ns
        if took_ns > SLOW_STEP_NS:
            self.slow_step_count += 1
            self.slow(event, took_ns)
