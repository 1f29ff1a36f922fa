"""What a driver counts while somebody wants to know: requests by API, their times, answers, errors.

Plain integers, changed on the hot path by the driver itself and read by whoever publishes them. They
must never change what a machine does, and cost a comparison where there is no meter. There is no clock
here: the runtime owes `now_ns`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import attrs

from flussd.core.edge.budget import Budget
from flussd.core.edge.frames import request_head

SAMPLES_MAX: Final = 1024
"""Latest values of which quantiles are made, as upstream's histograms keep them."""

TIMED_SHIFT: Final = 4
"""One request of an API is timed in 2**4 ms: reading a clock costs as much as all the rest together."""


@attrs.define(eq=False)
class ApiCounts:
    """The requests of one API since the start; *times_ns* are of the latest that were timed."""

    request_count: int = 0
    request_bytes: int = 0
    times_ns: deque[int] = attrs.Factory(lambda: deque(maxlen=SAMPLES_MAX))
    timed_at: int = -1  # the 16 ms whose one request is timed


@attrs.define(eq=False)
class Meter:
    """The counts of one driver."""

    now_ns: Callable[[], int]
    apis: dict[int, ApiCounts]  # one for each API that is served
    unserved: ApiCounts = attrs.Factory(ApiCounts)  # all others
    answer_bytes: int = 0
    errors: Counter[int] = attrs.Factory(Counter)  # answers that are an error as a whole, by code

    def time(self, budget: Budget, frame: memoryview, counts: ApiCounts, now_ms: int) -> None:
        """Time the request in *frame*."""
        _, _, request_id, _ = request_head(frame)
        counts.timed_at = now_ms >> TIMED_SHIFT
        budget.timed[request_id] = (counts.times_ns, self.now_ns())

    def timed(self, budget: Budget, request_id: int) -> None:
        """Note the time of a request that is answered, if it is one that is timed."""
        begun = budget.timed.pop(request_id, None)
        if begun is not None:
            times_ns, began_ns = begun
            times_ns.append(self.now_ns() - began_ns)
