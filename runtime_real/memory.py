"""Connections between nodes of one process: the same frames, through memory.

Nothing is delivered from within a send: each frame is copied into a buffer of its own, which the
receiver may write to, and waits in the hub's queue. What one side sent before a close still arrives.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from flussd.core.driver import Driver
from flussd.core.ports import Buffers
from flussd.runtime_real.hub import Hub

LENGTH: Final = struct.Struct(">i")


@attrs.define(eq=False)
class MemoryEnd:
    """One end; *serves*: requests come in here, responses at the other end."""

    number: int
    hub: Hub
    driver: Driver
    serves: bool
    closed: Callable[[MemoryEnd], None]
    peer: MemoryEnd | None = None  # None before `join`, and after the end of either side
    is_open: bool = True
    paused: bool = False
    waiting: deque[bytearray] = attrs.Factory(deque)

    def send(self, parts: Buffers) -> None:
        """Queue the frames of *parts* for the other end."""
        if self.peer is not None:
            for frame in frames_of(parts):
                self.hub.soon(self.peer.receive, frame)

    def close(self) -> None:
        """Close both ends, behind what is on the way."""
        self.hub.soon(self._close)

    def pause(self) -> None:
        """Deliver nothing until resume."""
        self.paused = True

    def resume(self) -> None:
        """Deliver again, beginning with what has waited."""
        self.paused = False
        while self.waiting:
            self.hub.soon(self.receive, self.waiting.popleft())

    def receive(self, frame: bytearray) -> None:
        """Take a frame in, without its length."""
        if not self.is_open:
            return
        if self.paused:
            self.waiting.append(frame)
        elif self.serves:
            self.driver.frame_received(self.number, memoryview(frame))
        else:
            self.driver.response_received(self.number, memoryview(frame))

    def _close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        peer, self.peer = self.peer, None
        self.closed(self)
        if peer is not None:
            peer.close()


def join(one: MemoryEnd, other: MemoryEnd) -> None:
    """Make them the two ends of one connection."""
    one.peer, other.peer = other, one


def frames_of(parts: Buffers) -> Iterator[bytearray]:
    """Split what is sent at once, a frame or several, at its length fields; copies."""
    whole = memoryview(bytearray().join(parts))
    at = 0
    while at < len(whole):
        (size_bytes,) = LENGTH.unpack_from(whole, at)
        at += LENGTH.size
        assert at + size_bytes <= len(whole), (
            f"expected {size_bytes} bytes of a frame, got {len(whole) - at}"
        )
        yield bytearray(whole[at : at + size_bytes])
        at += size_bytes
