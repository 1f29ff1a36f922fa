"""Virtual time: one heap of what will happen, the hash of what did, and the counters of a run.

Time is in microseconds since the start of the run and moves only from one entry of the heap to the next.
Entries of one moment are ordered by a keyed draw, so that no order is favoured. The world calls; whatever
is called must schedule, and never wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.runtime_sim.draws import key_of, mixed
from flussd.runtime_sim.fingerprint import Fingerprint
from flussd.runtime_sim.story import Story

MS: Final = 1000
SECOND: Final = 1000 * MS


class OutOfTime(Exception):  # noqa: N818 - a fact, as events are
    """More entries were run than any healthy run needs: something goes round in circles."""


@attrs.define(eq=False, repr=False)
class World:
    """The loop of one run; everything else hangs on it."""

    seed: int
    story: Story = attrs.Factory(Story)
    now_us: int = 0
    entry_count: int = 0
    entries_max: int = 3_000_000
    fingerprint: Fingerprint = attrs.Factory(Fingerprint)
    counts: dict[str, int] = attrs.Factory(dict)
    _heap: list[tuple[int, int, int, Callable[..., None], tuple[Any, ...]]] = attrs.Factory(list)
    _sequence: int = 0
    _tie_key: int = 0

    def __attrs_post_init__(self) -> None:
        self._tie_key = key_of(self.seed, "tie")

    def at(self, at_us: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call *call* at *at_us*, or now if that has passed."""
        self._sequence += 1
        tie = mixed(self._tie_key, self._sequence)
        entry = (max(at_us, self.now_us), tie, self._sequence, call, arguments)
        heapq.heappush(self._heap, entry)

    def planned(self, at_us: int, n: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call *call* at *at_us*, before all else of that moment; *n* orders those of one moment.

        Leaves no trace in the order of anything else: a plan without it is the same up to then.
        """
        heapq.heappush(self._heap, (at_us, -1, n, call, arguments))

    def after(self, delay_us: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call *call* in *delay_us*."""
        self.at(self.now_us + delay_us, call, *arguments)

    def run_until(self, end_us: int) -> None:
        """Let everything happen up to *end_us*."""
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            at_us, _, _, call, arguments = heapq.heappop(heap)
            self.now_us = at_us
            self.entry_count += 1
            if self.entry_count > self.entries_max:
                raise OutOfTime(f"{self.entry_count} entries by {at_us // MS} ms")
            call(*arguments)
        self.now_us = max(self.now_us, end_us)

    def run_while(self, waiting: Callable[[], bool], end_us: int, step_us: int = 50 * MS) -> bool:
        """Run until *waiting* is False, looked at every *step_us*; return whether that came by *end_us*."""
        while waiting():
            if self.now_us >= end_us:
                return False
            self.run_until(min(end_us, self.now_us + step_us))
        return True

    def delivered(self, node: int, event: Any) -> None:
        """Note that *event* was delivered to *node*."""
        self.fingerprint.add(self.now_us, node, event)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a counter of the summary."""
        self.counts[what] = self.counts.get(what, 0) + number
