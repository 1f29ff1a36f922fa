"""Rates over the last minute, as upstream's meters have them, from sums that only grow.

The caller owes it a `tick` every few seconds, with all sums there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final, TypeAlias

import attrs

WINDOW_MS: Final = 60_000
"""What a rate looks back on."""

TICK_MS: Final = 5_000
"""Distance of ticks: a rate is of 55 to 60 seconds."""

Sums: TypeAlias = Mapping[Hashable, int]


@attrs.define(eq=False)
class Rates:
    """The sums of the last minute."""

    _ticks: deque[tuple[int, Sums]] = attrs.Factory(deque)

    def tick(self, now_ms: int, sums: Sums) -> None:
        """Keep *sums* to compare with later ones."""
        self._ticks.append((now_ms, sums))
        while len(self._ticks) > 1 and self._ticks[1][0] <= now_ms - WINDOW_MS:
            self._ticks.popleft()

    def per_second(self, now_ms: int, sums: Sums) -> dict[Hashable, float]:
        """Return how much each sum grew in a second; one that is new began at nothing."""
        then_ms, before = self._ticks[0] if self._ticks else (now_ms, sums)
        seconds = max(now_ms - then_ms, 1) / 1000
        return {key: max(0, total - before.get(key, 0)) / seconds for key, total in sums.items()}
