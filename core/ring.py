"""The last events of a machine, heads only: what a dump shows when something went wrong.

Never holds a buffer: payloads are replaced by their sizes, so that a receive buffer can be reused.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from flussd.core.connections import ProduceReceived
from flussd.core.files import FileRead
from flussd.core.limits import RING_EVENTS


@attrs.define(eq=False)
class Ring:
    """The last *capacity* events with the time each was delivered at."""

    events: deque[tuple[int, Any]] = attrs.Factory(lambda: deque(maxlen=RING_EVENTS))

    def add(self, now_ms: int, event: Any) -> None:
        """Remember *event*; its payload is dropped."""
        kind = type(event)
        if kind is ProduceReceived:
            event = ("ProduceReceived", event.connection, event.request_id, event.table_id)
        elif kind is FileRead:
            event = ("FileRead", event.token, len(event.data), event.error)
        self.events.append((now_ms, event))

    def lines(self) -> list[str]:
        """Return the events as text, oldest first."""
        return [f"{now_ms:>12} {event}" for now_ms, event in self.events]
