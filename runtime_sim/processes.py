"""One process of a node: a machine, its shared driver, and the ports; it may die at any effect.

Everything from outside enters through `enter`, which delays it while the process is paused, drops it once
it is dead, and ends the process where its death was ordered. Nothing here looks at what a machine believes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.driver import Driver
from flussd.core.edge.frames import FRAME_HEAD_RESPONSE_BYTES, FrameBuffer, FrameError
from flussd.core.machine import Announce, Fatal, Stopped
from flussd.core.ports import Buffers
from flussd.runtime_sim.network import End, Network
from flussd.runtime_sim.world import World

CHECK_ALL_EVERY: Final = 1_000
"""Deliveries between two looks at the whole state of a machine."""


class ProcessDied(Exception):  # noqa: N818 - a fact, as events are
    """The process is to end before this effect is started."""


@attrs.define(eq=False, repr=False)
class SimDriver(Driver):
    """The shared driver, watched: every delivery is hashed and checked, every effect may be the last."""

    process: Process = attrs.field(kw_only=True)

    def deliver(self, event: Any) -> None:
        """Hash *event*, let it happen, and look at what it did."""
        process = self.process
        process.world.delivered(process.node, event)
        if process.world.story.is_told:
            process.world.story.event(process.world.now_us, process.name, "event", event)
        super().deliver(event)
        self.machine.check()
        process.delivered_count += 1
        if process.delivered_count % CHECK_ALL_EVERY == 0:
            self.machine.check_all()
        process.on_delivered()

    def perform(self, effect: Any) -> None:
        """Start *effect*, unless the process is to die here."""
        process = self.process
        if process.effects_left >= 0:
            process.effects_left -= 1
            if process.effects_left < 0:
                if process.on_last_effect is None:
                    raise ProcessDied
                process.on_last_effect()
        if process.world.story.is_told:
            process.world.story.event(process.world.now_us, process.name, "effect", effect)
        super().perform(effect)


@attrs.define(eq=False, repr=False)
class Process:
    """One run of one node; it never comes back once it is dead."""

    world: World
    node: int
    name: str
    driver: SimDriver = attrs.field(init=False)
    is_dead: bool = False
    is_paused: bool = False
    effects_left: int = -1  # until it dies; -1: nobody ordered that
    delivered_count: int = 0
    ends: dict[End, None] = attrs.Factory(dict)  # of its connections
    announced: list[Announce | Stopped | Fatal] = attrs.Factory(list)
    on_delivered: Callable[[], None] = lambda: None
    on_death: Callable[[], None] = lambda: None
    on_last_effect: Callable[[], None] | None = None  # instead of a death before it
    _inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = attrs.Factory(deque)

    def enter(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call into the process, now or when it is not paused any more."""
        if self.is_dead:
            return
        if self.is_paused:
            self._inbox.append((call, arguments))
            return
        try:
            call(*arguments)
        except ProcessDied:
            self.on_death()

    def go_on(self) -> None:
        """End a pause; what came meanwhile comes now."""
        self.is_paused = False
        inbox, self._inbox = self._inbox, deque()
        for call, arguments in inbox:
            self.enter(call, *arguments)

    def post(self, event: Any) -> None:
        """Deliver *event* to the machine."""
        self.enter(self._post, event)

    def _post(self, event: Any) -> None:
        self.driver.post(event)
        self.driver.run()

    def ring(self, alarm: int) -> None:
        """Ring the alarm, if it is still the one that was asked for."""
        clock: Any = self.driver.ports.clock
        if alarm == clock.alarm and not self.is_dead:
            self.enter(self.driver.wake)

    def announce(self, what: Announce | Stopped | Fatal) -> None:
        """Note what the machine tells whoever runs it; its end ends the process, soon."""
        self.announced.append(what)
        if not isinstance(what, Announce):
            self.world.after(0, self._end_if_alive)

    def _end_if_alive(self) -> None:
        if not self.is_dead:
            self.on_death()


@attrs.define(eq=False, repr=False)
class ProcessNetwork:
    """The network port of one process."""

    process: Process
    network: Network
    served: dict[int, ServerEnd] = attrs.Factory(dict)  # by the driver's connection number
    _number: int = 0

    def accept(self, end: End, *, internal: bool) -> None:
        """A peer connected."""
        held = self._hold(end, is_ours=False)
        self.process.enter(self._opened, held.number, internal)

    def _hold(self, end: End, *, is_ours: bool) -> ServerEnd:
        self._number += 1
        held = ServerEnd(self, self._number, end, is_ours)
        self.served[self._number] = end.receiver = held
        self.process.ends[end] = None
        return held

    def _opened(self, number: int, internal: bool) -> None:  # noqa: FBT001
        self.process.driver.connection_opened(number, internal=internal)

    def forget(self, held: ServerEnd) -> None:
        """A connection is gone."""
        if self.served.pop(held.number, None) is not None:
            self.process.ends.pop(held.end, None)
            self.process.enter(self.process.driver.connection_closed, held.number)

    # ---- the port ------------------------------------------------------------------------------

    def send(self, connection: int, parts: Buffers) -> None:
        """Send *parts*; a connection that is gone is no error."""
        held = self.served.get(connection)
        if held is not None:
            held.end.send(b"".join(parts))

    def close(self, connection: int) -> None:
        """Close; the driver is told, soon."""
        held = self.served.get(connection)
        if held is not None:
            held.end.close()
            self.process.world.after(0, self.forget, held)

    def connect(self, address: str, done: Callable[[int | None], None]) -> None:
        """Open an internal connection."""
        placeholder = Unconnected()

        def connected(end: End | None) -> None:
            if end is not None and self.process.is_dead:
                end.abandon()
                return
            number = None if end is None else self._hold(end, is_ours=True).number
            self.process.enter(self._connected, done, number)

        self.network.connect(self.process.node, address, placeholder, connected)

    def _connected(self, done: Callable[[int | None], None], number: int | None) -> None:
        done(number)
        self.process.driver.run()

    def pause(self, connection: int) -> None:
        """Read no more from *connection*."""
        held = self.served.get(connection)
        if held is not None:
            held.end.pause()

    def resume(self, connection: int) -> None:
        """Read from *connection* again."""
        held = self.served.get(connection)
        if held is not None:
            held.end.resume()


@attrs.define(eq=False, repr=False)
class Unconnected:
    """The receiver of a connection that is being opened; nothing arrives before it is open."""

    def received(self, payload: Any) -> None:
        """Nothing is sent to us before we know that we are connected."""
        raise AssertionError(f"network: {payload!r} before the connection was open")

    def lost(self) -> None:
        """It broke before it was open: whoever asked gets None."""


@attrs.define(eq=False, repr=False)
class ServerEnd:
    """The receiver of one connection of a server: from bytes to frames."""

    port: ProcessNetwork
    number: int
    end: End
    is_ours: bool  # we opened it: responses come in
    frames: FrameBuffer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.frames = FrameBuffer(min_bytes=FRAME_HEAD_RESPONSE_BYTES) if self.is_ours else FrameBuffer()

    def received(self, payload: bytes) -> None:
        """Bytes came in."""
        self.port.process.enter(self._take, payload)

    def _take(self, payload: bytes) -> None:
        driver = self.port.process.driver
        take = driver.response_received if self.is_ours else driver.frame_received
        try:
            for frame in self.frames.feed(payload):
                take(self.number, frame)
        except FrameError:
            self.port.close(self.number)

    def lost(self) -> None:
        """The connection is gone."""
        self.port.forget(self)
