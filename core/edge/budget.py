"""What one connection may have waiting unanswered, and its name: back-pressure by not reading a socket.

Connections between servers are always read: parked acks=-1 writes would block the very fetch that
frees them. The caller owes it one `done` for each `accepted` that gets its reply.
"""

from __future__ import annotations

from collections import deque

import attrs

from flussd.core.limits import ACCEPTED_BYTES_PER_CONNECTION, ACCEPTED_REQUESTS_PER_CONNECTION


@attrs.define(eq=False)
class Budget:
    """Accepted, unanswered requests and bytes of one connection."""

    internal: bool
    client: str = ""  # what it calls itself
    request_count: int = 0
    request_bytes: int = 0
    paused: bool = False
    sizes_bytes: dict[int, int] = attrs.Factory(dict)  # request id -> bytes
    timed: dict[int, tuple[deque[int], int]] = attrs.Factory(dict)  # request id -> a meter's notes

    def accepted(self, request_id: int, frame_bytes: int) -> bool:
        """Count a request; return True when the connection must now be paused."""
        self.request_count += 1
        self.request_bytes += frame_bytes
        # A client may use an id twice; the first answer then frees both sizes.
        self.sizes_bytes[request_id] = self.sizes_bytes.get(request_id, 0) + frame_bytes
        if self.internal or self.paused or not self._spent():
            return False
        self.paused = True
        return True

    def done(self, request_id: int) -> bool:
        """Count an answer; return True when the connection may be read again."""
        self.request_count -= 1
        self.request_bytes -= self.sizes_bytes.pop(request_id, 0)
        if not self.paused or self._spent():
            return False
        self.paused = False
        return True

    def _spent(self) -> bool:
        return (
            self.request_count >= ACCEPTED_REQUESTS_PER_CONNECTION
            or self.request_bytes >= ACCEPTED_BYTES_PER_CONNECTION
        )
