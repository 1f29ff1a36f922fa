"""One loop that serves every socket, timer and node of a process, synchronously.

It waits on its own epoll set, turned by host.py; trio keeps signals and supervision and costs nothing
per request. In a wake-up: time is sampled, ready sockets are read and their frames stepped, alarms
ring, what was put off is done, each connection with output gets one gathered send, and what nobody
waits for comes last. Nothing here may block, and no peer can end it: errors of sockets are handled where
the call is made. An exception that comes out of `run` is our own bug, and its caller must end the process.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
import trio

from flussd.core.driver import Driver
from flussd.runtime_real.clock import NodeClock, WakeUpTime
from flussd.runtime_real.workers import Workers

SOON_PER_WAKE_UP: Final = 4096
"""Put-off calls done before sockets and alarms get their turn again: some 20 ms of work."""

SLOW_NS: Final = 2_000_000
"""Time from which a wake-up counts as slow: every connection waited that long."""

WAIT_MS_MAX: Final = 60_000
"""Longest sleep; there is no reason to wake earlier, and none to compute with infinity."""


class Source(Protocol):
    """A file descriptor in the epoll set."""

    def ready(self, events: int) -> None:
        """Serve it; *events* is epoll's mask."""


class Output(Protocol):
    """A connection with bytes to send."""

    def flush(self) -> None:
        """Send what the peer takes."""


class Unserved(Protocol):
    """A connection that holds whole frames which were not delivered yet."""

    def serve(self) -> None:
        """Deliver frames, up to the cap of one wake-up."""


@attrs.define(eq=False)
class Hub:
    """The loop; *time* and *workers* are shared by all nodes of the process."""

    time: WakeUpTime = attrs.Factory(WakeUpTime)
    workers: Workers = attrs.Factory(Workers)
    epoll: select.epoll = attrs.Factory(lambda: select.epoll(flags=select.EPOLL_CLOEXEC))
    dirty: list[Output] = attrs.Factory(list)  # each once; flushed at the end of the wake-up
    unserved: list[Unserved] = attrs.Factory(list)  # each once; served in the next wake-up
    hosted: bool = False  # whether somebody turns it
    serving: bool = False  # whether `run` is awaited
    sources_max: int = 1 << 30  # descriptors served at a time; further connections wait to be accepted
    stopping: bool = False
    slow: Callable[[int], None] | None = None  # gets the ns of a wake-up that took too long
    _sources: dict[int, Source] = attrs.Factory(dict)
    _soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = attrs.Factory(deque)
    _behind: list[tuple[Callable[..., None], tuple[Any, ...]]] = attrs.Factory(list)
    _timers: list[tuple[int, int, Callable[[], None]]] = attrs.Factory(list)
    _alarms: list[tuple[NodeClock, Driver]] = attrs.Factory(list)
    _end: trio.Event = attrs.Factory(trio.Event)
    _tell_end: Callable[[], None] = lambda: None
    _failure: BaseException | None = None
    _ordinals: itertools.count[int] = attrs.Factory(itertools.count)
    _connections: itertools.count[int] = attrs.Factory(lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        self.register(self.workers.wake_fd, self.workers, select.EPOLLIN)

    # ---- what others ask of it -----------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether a new connection would take a descriptor that something else needs."""
        return len(self._sources) >= self.sources_max

    def new_connection(self) -> int:
        """Return a connection number that no node of this process had before."""
        return next(self._connections)

    def register(self, fd: int, source: Source, events: int) -> None:
        """Serve *fd* from now on."""
        self._sources[fd] = source
        self.epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Wait for other *events* of *fd*."""
        self.epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Serve *fd* no more; call it before the descriptor is closed."""
        del self._sources[fd]
        self.epoll.unregister(fd)

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call back after everything that was put off before, never from within this call."""
        self._soon.append((call, arguments))

    def behind(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call back once the answers of this wake-up are sent: nobody waits for it."""
        self._behind.append((call, arguments))

    def call_at(self, at_ms: int, call: Callable[[], None]) -> None:
        """Call back at *at_ms* or soon after."""
        heapq.heappush(self._timers, (at_ms, next(self._ordinals), call))

    def add_alarm(self, clock: NodeClock, driver: Driver) -> None:
        """Wake *driver* whenever the alarm of *clock* is due."""
        self._alarms.append((clock, driver))

    def stop(self) -> None:
        """End `run` after the present wake-up; call it on the hub's own thread."""
        self.stopping = True
        self.wake()

    def wake(self) -> None:
        """End the sleep of `run`: something was put off by another task of the same thread."""
        self.workers.wake()

    def close(self) -> None:
        """Give the descriptors back; nothing is served any more."""
        self.workers.close()
        self.epoll.close()

    # ---- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop`: the host turns the hub meanwhile. Raise what came out of a wake-up."""
        assert self.hosted, "a hub is turned by a Host; trio alone does not do it"
        self._end, token = trio.Event(), trio.lowlevel.current_trio_token()
        self._tell_end = lambda: token.run_sync_soon(self._end.set)
        self.serving = True
        try:
            await self._end.wait()
        finally:
            self.serving = False
        if self._failure is not None:
            raise self._failure

    def turn(self) -> None:
        """Sleep until there is something to do, and do it; the host calls it while `serving`."""
        try:
            self.wake_up(self.epoll.poll(self._wait_ms() / 1000))
        except BaseException as failure:  # noqa: BLE001 - raised again by `run`
            self._failure = failure
        if self.stopping or self._failure is not None:
            self.serving = False
            self._tell_end()

    def wake_up(self, events: list[tuple[int, int]]) -> None:
        """Do all that is to be done now, once."""
        began_ns = self.time.sample_ns()
        unserved, self.unserved = self.unserved, []
        for connection in unserved:
            connection.serve()
        for fd, mask in events:
            source = self._sources.get(fd)
            if source is not None:  # else it was closed earlier in this wake-up
                source.ready(mask)
        self._ring()
        self._do_soon()
        dirty, self.dirty = self.dirty, []
        for output in dirty:
            output.flush()
        if self._behind:
            behind, self._behind = self._behind, []
            for call, arguments in behind:
                call(*arguments)
        if self.slow is not None and (took_ns := time.monotonic_ns() - began_ns) > SLOW_NS:
            self.slow(took_ns)

    def _wait_ms(self) -> int:
        """Return how long nothing will be due; 0 when work is left over."""
        if self._soon or self.unserved or self.dirty or self._behind:
            return 0
        now_ms = self.time.sample()
        due = [clock.alarm_ms for clock, _ in self._alarms if clock.alarm_ms is not None]
        if self._timers:
            due.append(self._timers[0][0])
        return max(0, min(min(due, default=now_ms + WAIT_MS_MAX) - now_ms, WAIT_MS_MAX))

    def _ring(self) -> None:
        now_ms = self.time.now_ms
        while self._timers and self._timers[0][0] <= now_ms:
            heapq.heappop(self._timers)[2]()
        for clock, driver in self._alarms:
            if clock.is_due():
                driver.wake()

    def _do_soon(self) -> None:
        for _ in range(SOON_PER_WAKE_UP):
            if not self._soon:
                return
            call, arguments = self._soon.popleft()
            call(*arguments)
