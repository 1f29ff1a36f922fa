"""Client connections over TCP: frames in, gathered sends out, with bounds on both sides.

Reading stops while the driver says so, while the peer does not take its answers, and after a share of
each wake-up, so that nobody starves the others. A peer can only ever lose its own connection. The hub
owes `ready`, `serve` and `flush`, each from its own thread; nothing here is called from within a step
except through the network port, which only queues.
"""

from __future__ import annotations

import errno
import itertools
import select
import socket
from collections import deque
from collections.abc import Callable
from logging import WARNING
from typing import Final

import attrs

from flussd.core.driver import Driver
from flussd.core.edge.frames import FrameBuffer, FrameError
from flussd.core.ports import Buffers
from flussd.runtime_real.hub import Hub
from flussd.runtime_real.logs import tell

READ_BYTES_PER_WAKE_UP: Final = 4 * 1024 * 1024
"""A connection's share of one wake-up: about 2 ms, so that a large request stalls no heartbeat."""

FRAMES_PER_WAKE_UP: Final = 256
"""The same share in small requests."""

OUTPUT_HIGH_BYTES: Final = 16 * 1024 * 1024
"""Unsent answers above which a connection is read no more: one large fetch answer."""

OUTPUT_LOW_BYTES: Final = 4 * 1024 * 1024
"""Unsent answers below which it is read again."""

OUTPUT_MAX_BYTES: Final = 512 * 1024 * 1024
"""Unsent answers at which it is closed: parked fetches can be answered though it is not read."""

SEND_PARTS_MAX: Final = 1024
"""IOV_MAX of Linux."""

ACCEPTS_PER_WAKE_UP: Final = 64
"""New connections of one wake-up; the backlog holds the rest."""

ACCEPT_PAUSE_MS: Final = 100
"""Rest after the process ran out of descriptors: some connection will be closed in the meantime."""

TELL_AGAIN_MS: Final = 10_000
"""Distance of two lines in the log that say the same of one listener."""

SHRINK_MS: Final = 10_000
"""Silence after which a connection's receive buffer is given back."""

IDLE_MS: Final = 10 * 60 * 1000
"""Silence after which a connection without unanswered requests is closed, as upstream does."""

HALF_CLOSED_MS: Final = 60 * 1000
"""How long a peer that sends no more may wait for answers; longer than any sensible long poll."""

SWEEP_MS: Final = 10 * 1000
"""Distance of looks for idle connections."""

SHORT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept that stay until something is given back."""

TCP_QUICKACK: Final = 12
"""Linux's number; `socket` has it only from 3.12 on in all builds."""

AWAITED_BYTES_MIN: Final = 64 * 1024
"""Missing bytes of a frame from which the kernel is told to wake us for all of them: the sender of a
batch of 500 KiB woke us five times for it, and each time costs more than the copy of what came."""

AWAITED_BYTES_MAX: Final = 512 * 1024
"""What the kernel is asked to gather at most; it makes the receive window as large."""

READABLE: Final = select.EPOLLIN
GONE: Final = select.EPOLLHUP | select.EPOLLERR


@attrs.define(eq=False)
class SocketConnection:
    """One accepted connection of *driver*; `closed` calls back once it is gone."""

    number: int
    hub: Hub
    driver: Driver
    peer: socket.socket
    closed: Callable[[SocketConnection], None]
    frames: FrameBuffer = attrs.Factory(FrameBuffer)
    unanswered_count: int = 0
    output: deque[memoryview | bytes] = attrs.Factory(deque)
    output_bytes: int = 0
    last_ms: int = 0  # when bytes last moved, in either direction
    is_open: bool = True
    paused: bool = False  # by the driver: too much is unanswered
    choked: bool = False  # too much is unsent
    half_closed: bool = False  # the peer sends no more
    _fd: int = attrs.field(init=False)
    _interest: int = READABLE
    _dirty: bool = False
    _unserved: bool = False
    _awaited_bytes: int = 1  # what the socket must hold before it counts as readable

    def __attrs_post_init__(self) -> None:
        self._fd = self.peer.fileno()
        self.last_ms = self.hub.time.now_ms
        self.hub.register(self._fd, self, READABLE)

    # ---- the network port's side ---------------------------------------------------------------

    def send(self, parts: Buffers) -> None:
        """Queue one answer; it leaves at the end of the wake-up."""
        self.unanswered_count -= 1
        for part in parts:
            self.output.append(_kept(part))
            self.output_bytes += len(part)
        self._soil()
        if self.output_bytes > OUTPUT_HIGH_BYTES and not self.choked:
            self.choked = True
            self._update_interest()

    def close(self) -> None:
        """Deliver no more, and close behind this step; what was answered before is sent if it can be."""
        self.paused = True
        self.hub.soon(self._flush_and_close)

    def pause(self) -> None:
        """Read no more until resume."""
        self.paused = True
        self._update_interest()

    def resume(self) -> None:
        """Read again, beginning with what was read already."""
        self.paused = False
        self._serve_later()

    # ---- the hub's side ------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Read, write or close, as epoll found."""
        if events & select.EPOLLOUT:
            self.flush()
        if events & READABLE and self._reads():
            self._read()
        elif events & GONE:
            self._close()

    def serve(self) -> None:
        """Deliver frames that wait in the buffer; the socket itself comes next."""
        self._unserved = False
        if self.is_open and self._reads():
            self._deliver(FRAMES_PER_WAKE_UP)
            self._after_reading()

    def flush(self) -> None:
        """Send what the peer takes, in one call."""
        self._dirty = False
        if not self.is_open:
            return
        if self.output_bytes > OUTPUT_MAX_BYTES:
            self._close()
            return
        if self.output and not self._send_some():
            return
        if self.choked and self.output_bytes <= OUTPUT_LOW_BYTES:
            self.choked = False
            self._serve_later()
        self._update_interest()
        if self.half_closed and not self.output and self.unanswered_count <= 0:
            self._close()

    def sweep(self, now_ms: int) -> None:
        """Close if nothing moved for long; a parked request is no silence. Silent ones shrink."""
        silent_ms = now_ms - self.last_ms
        if silent_ms > SHRINK_MS and not self._unserved:
            self.frames.shrink()
        waits = self.unanswered_count > 0 and not self.output
        if (silent_ms > IDLE_MS and not waits) or (self.half_closed and silent_ms > HALF_CLOSED_MS):
            self._close()

    # ---- inside --------------------------------------------------------------------------------

    def _reads(self) -> bool:
        return not (self.paused or self.choked or self.half_closed or self._unserved)

    def _read(self) -> None:
        read_bytes = 0
        frame_count = 0
        while self.is_open and self._reads():
            space = self.frames.writable()
            try:
                count = self.peer.recv_into(space)
            except BlockingIOError:
                break
            except OSError:  # reset, timed out, unreachable
                self._close()
                return
            if not count:
                self.half_closed = True
                break
            read_bytes += count
            self.frames.received(count)
            frame_count += self._deliver(FRAMES_PER_WAKE_UP - frame_count)
            if count < len(space) or read_bytes >= READ_BYTES_PER_WAKE_UP:
                break  # the socket is empty, or epoll tells us again
        self.last_ms = self.hub.time.now_ms
        self._await_bytes()
        self._after_reading()

    def _await_bytes(self) -> None:
        """Let the rest of a large frame come before we are woken; never more than that rest."""
        if not self.is_open:
            return
        awaited_bytes = self.frames.awaited_bytes
        awaited_bytes = min(awaited_bytes, AWAITED_BYTES_MAX) if awaited_bytes >= AWAITED_BYTES_MIN else 1
        if awaited_bytes != self._awaited_bytes:
            self._awaited_bytes = awaited_bytes
            try:
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, awaited_bytes)
            except OSError:  # the peer is gone; the next read says so
                return

    def _deliver(self, frame_count_max: int) -> int:
        """Hand whole frames to the driver; what is left over is served in the next wake-up."""
        count = 0
        try:
            for frame in self.frames.frames():
                count += 1
                self.unanswered_count += 1
                self.driver.frame_received(self.number, frame)
                if count >= frame_count_max:
                    self._serve_later()
                if not (self.is_open and self._reads()):
                    break
        except FrameError:
            self._close()
        return count

    def _after_reading(self) -> None:
        if not self.is_open:
            return
        if self.half_closed:
            self._soil()  # flush closes, unless answers are due
        if self.unanswered_count > 0 and not self.half_closed:
            # The Rust client lets Nagle hold its next request until this one is acknowledged, and a
            # parked request has no answer to carry that: 44 ms become 0.6.
            quick_ack(self.peer)
        self._update_interest()

    def _send_some(self) -> bool:
        """Make one gathered send; False when the connection is gone."""
        batch = list(itertools.islice(self.output, SEND_PARTS_MAX))
        try:
            sent = self.peer.sendmsg(batch)
        except BlockingIOError:
            return True
        except OSError:
            self._close()
            return False
        if sent:
            self.last_ms = self.hub.time.now_ms
        self.output_bytes -= sent
        while self.output and sent >= len(self.output[0]):
            sent -= len(self.output.popleft())
        if sent:
            self.output[0] = memoryview(self.output[0])[sent:]
        return True

    def _update_interest(self) -> None:
        if not self.is_open:
            return
        # What was not tried to be sent yet needs no event: the flush of this wake-up comes.
        stuck = self.output and not self._dirty
        interest = (READABLE if self._reads() else 0) | (select.EPOLLOUT if stuck else 0)
        if interest != self._interest:
            self._interest = interest
            self.hub.modify(self._fd, interest)

    def _flush_and_close(self) -> None:
        self.flush()
        self._close()

    def _close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self.hub.unregister(self._fd)
        self.peer.close()
        self.output.clear()
        self.closed(self)

    def _soil(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.hub.dirty.append(self)

    def _serve_later(self) -> None:
        if not self._unserved:
            self._unserved = True
            self.hub.unserved.append(self)


def _kept(part: memoryview | bytes) -> memoryview | bytes:
    """Return *part* itself if nobody can change it, else a copy: the caller's is free on return."""
    if type(part) is bytes or (isinstance(part, memoryview) and type(part.obj) is bytes):
        return part
    return bytes(part)


def quick_ack(peer: socket.socket) -> None:
    """Acknowledge what was received at once, once."""
    try:
        peer.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)
    except OSError:  # the peer is gone; the next read says so
        return


@attrs.define(eq=False)
class Listener:
    """A listening socket: what is accepted goes to *accepted*."""

    hub: Hub
    listening: socket.socket
    accepted: Callable[[socket.socket], None]
    _resting: bool = attrs.field(default=True, init=False)
    _told_ms: int = attrs.field(default=-(1 << 60), init=False)

    def __attrs_post_init__(self) -> None:
        self.listening.setblocking(False)  # noqa: FBT003 - its only signature
        self._listen()

    def ready(self, events: int) -> None:  # noqa: ARG002 - the hub's signature
        """Accept after all other events: a descriptor is not used twice in one wake-up."""
        self.hub.soon(self._accept)

    def close(self) -> None:
        """Listen no more."""
        if self.listening.fileno() >= 0:
            if not self._resting:
                self.hub.unregister(self.listening.fileno())
            self.listening.close()

    def _listen(self) -> None:
        if self.listening.fileno() >= 0:
            self._resting = False
            self.hub.register(self.listening.fileno(), self, READABLE)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE_UP):
            if self._resting or self.listening.fileno() < 0:
                return
            if self.hub.is_full:
                self._rest("there are as many connections as descriptors allow")
                return
            try:
                peer, _ = self.listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in SHORT_OF_RESOURCES:
                    self._rest(error.strerror or "")
                    return
                continue  # the peer went away before we came: ECONNABORTED and its kin
            peer.setblocking(False)  # noqa: FBT003 - its only signature
            try:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                peer.close()
                continue
            self.accepted(peer)

    def _rest(self, why: str) -> None:
        self._resting = True
        self.hub.unregister(self.listening.fileno())
        self.hub.call_at(self.hub.time.now_ms + ACCEPT_PAUSE_MS, self._listen)
        if self.hub.time.now_ms >= self._told_ms + TELL_AGAIN_MS:
            self._told_ms = self.hub.time.now_ms
            tell(WARNING, "accepts no connections", why, pause_ms=ACCEPT_PAUSE_MS)
