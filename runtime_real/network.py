"""The network port of one node: its client connections, and those to other nodes of the process.

It maps connection numbers to their ends, and tells the driver of every opening and closing. It must
never call the driver from within a step: the hub's queue stands between.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

import attrs

from flussd.core.driver import Driver
from flussd.core.ports import Buffers
from flussd.runtime_real.hub import Hub
from flussd.runtime_real.memory import MemoryEnd, join
from flussd.runtime_real.sockets import SWEEP_MS, Listener, SocketConnection


class End(Protocol):
    """Our end of a connection, of either kind."""

    number: int

    def send(self, parts: Buffers) -> None:
        """Queue bytes."""

    def close(self) -> None:
        """Close soon."""

    def pause(self) -> None:
        """Deliver nothing."""

    def resume(self) -> None:
        """Deliver again."""


@attrs.define(eq=False)
class Addresses:
    """The nodes of this process by their internal address."""

    nodes: dict[str, NodeNetwork] = attrs.Factory(dict)


@attrs.define(eq=False)
class NodeNetwork:
    """Connections of one node; `driver` is set before anything else is called."""

    hub: Hub
    addresses: Addresses
    internal_address: str
    driver: Driver = attrs.field(init=False)
    ends: dict[int, End] = attrs.Factory(dict)
    listeners: list[Listener] = attrs.Factory(list)
    accepted_count: int = 0

    @property
    def client_count(self) -> int:
        """Connections that were accepted and are open."""
        return sum(isinstance(end, SocketConnection) for end in self.ends.values())

    # ---- the port ------------------------------------------------------------------------------

    def send(self, connection: int, parts: Buffers) -> None:
        """Send *parts*; a connection that is gone is no error."""
        end = self.ends.get(connection)
        if end is not None:
            end.send(parts)

    def close(self, connection: int) -> None:
        """Close; the driver is told."""
        end = self.ends.get(connection)
        if end is not None:
            end.close()

    def connect(self, address: str, done: Callable[[int | None], None]) -> None:
        """Open an internal connection to a node of this process; others are refused."""
        self.hub.soon(self._connect, address, done)

    def pause(self, connection: int) -> None:
        """Read no more from *connection*."""
        end = self.ends.get(connection)
        if end is not None:
            end.pause()

    def resume(self, connection: int) -> None:
        """Read from *connection* again."""
        end = self.ends.get(connection)
        if end is not None:
            end.resume()

    # ---- the wiring's side ---------------------------------------------------------------------

    def listen(self, listening: socket.socket) -> None:
        """Serve clients that connect to *listening*, and peers in this process."""
        self.addresses.nodes[self.internal_address] = self
        self.listeners.append(Listener(self.hub, listening, self._accepted))
        self.hub.call_at(self.hub.time.now_ms + SWEEP_MS, self._sweep)

    def shut(self) -> None:
        """Accept no more and close all connections."""
        self.addresses.nodes.pop(self.internal_address, None)
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        for end in list(self.ends.values()):
            end.close()

    def abandon(self) -> None:
        """Close all sockets at once; the hub serves no more, and nobody is told."""
        for end in self.ends.values():
            if isinstance(end, SocketConnection):
                end.peer.close()

    # ---- inside --------------------------------------------------------------------------------

    def _accepted(self, peer: socket.socket) -> None:
        number = self.hub.new_connection()
        self.accepted_count += 1
        self.ends[number] = SocketConnection(number, self.hub, self.driver, peer, self._closed)
        self.driver.connection_opened(number, internal=False)

    def _connect(self, address: str, done: Callable[[int | None], None]) -> None:
        server = self.addresses.nodes.get(address)
        if server is None:
            done(None)
        else:
            hub = self.hub
            ours = MemoryEnd(hub.new_connection(), hub, self.driver, serves=False, closed=self._closed)
            theirs = MemoryEnd(hub.new_connection(), hub, server.driver, serves=True, closed=server._closed)
            join(ours, theirs)
            self.ends[ours.number] = ours
            server.ends[theirs.number] = theirs
            server.driver.connection_opened(theirs.number, internal=True)
            done(ours.number)
        self.driver.run()

    def _closed(self, end: End) -> None:
        del self.ends[end.number]
        # A send can fail within a step of this driver; what it posts is then delivered after it.
        self.driver.connection_closed(end.number)

    def _sweep(self) -> None:
        if not self.listeners:
            return
        for end in list(self.ends.values()):
            if isinstance(end, SocketConnection):
                end.sweep(self.hub.time.now_ms)
        self.hub.call_at(self.hub.time.now_ms + SWEEP_MS, self._sweep)
