"""The producers whose offsets are registered, and whose time ends next.

A part of the coordinator's state: only `apply` may change it.
"""

from __future__ import annotations

import heapq
from typing import Final

import attrs

from flussd.core.coordinator.admin_records import ProducerRecord

STALE_ENDS_MIN: Final = 64
"""As many ends of producers that are gone may be remembered, and as many again as there are producers."""


@attrs.define(eq=False)
class Producers:
    """By id; what ends first is known without a look at all of them."""

    by_id: dict[str, ProducerRecord] = attrs.Factory(dict)
    _ends: list[tuple[int, str]] = attrs.Factory(list)  # a heap; of producers that are gone, too

    def put(self, record: ProducerRecord) -> None:
        """A producer registered."""
        assert record.producer_id not in self.by_id, "a registration is never overwritten"
        self.by_id[record.producer_id] = record
        heapq.heappush(self._ends, (record.expires_ms, record.producer_id))

    def drop(self, producer_id: str) -> None:
        """A registration was deleted."""
        del self.by_id[producer_id]
        if len(self._ends) > 2 * len(self.by_id) + STALE_ENDS_MIN:
            self._ends = sorted((one.expires_ms, name) for name, one in self.by_id.items())

    def next_end_ms(self) -> int | None:
        """Return the wall time at which the first registration ends; None if there is none."""
        while self._ends and not self._is_there(self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    def _is_there(self, end: tuple[int, str]) -> bool:
        record = self.by_id.get(end[1])
        return record is not None and record.expires_ms == end[0]

    def ended(self, wall_ms: int, count_max: int) -> list[str]:
        """Return the first *count_max* producers whose time is over; O(1) when there are none."""
        first_ms = self.next_end_ms()
        if first_ms is None or first_ms > wall_ms:
            return []
        ends = [(one.expires_ms, name) for name, one in self.by_id.items() if one.expires_ms <= wall_ms]
        return [name for _, name in sorted(ends)[:count_max]]

    def clone(self) -> Producers:
        """Return a copy that shares nothing that changes."""
        return Producers(dict(self.by_id), list(self._ends))

    def check_all(self) -> None:
        """Assert that every end is known."""
        ends = dict.fromkeys(self._ends)
        assert all((one.expires_ms, name) in ends for name, one in self.by_id.items())
