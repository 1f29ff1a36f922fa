"""Connections in virtual time: latency, order, resets, half-open ends, partitions.

Shaped like TCP. What is sent arrives in order or not at all; a connection dies for both ends, but each
learns of it in its own time, and what was on the way then may have arrived or not. Connections have
identity: what was meant for one never reaches another. Whoever holds an end must forget it when told.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.world import MS, SECOND, World

CONNECT_TIMEOUT_US: Final = (1 * SECOND, 3 * SECOND)
"""Until a connection to somebody who does not answer is given up."""

RETRANSMISSION_US: Final = (200 * MS, 3 * SECOND)
"""From a send into the void until the sender's kernel gives up (scaled down from minutes)."""

KEEP_ALIVE_US: Final = (5 * SECOND, 12 * SECOND)
"""Until an end that sends nothing learns that nobody is there."""

CHOPPED_PPM: Final = 250_000
"""Connections whose frames travel in pieces."""


class Receiver(Protocol):
    """Who holds an end of a connection."""

    def received(self, payload: Any) -> None:
        """Bytes, or for registry links a message, came in."""

    def lost(self) -> None:
        """The connection is gone."""


class Listener(Protocol):
    """Who accepts connections at an address."""

    def accept(self, end: End) -> None:
        """Take the other end of a new connection; set its receiver."""


class Cut(enum.Enum):
    """What a partition does to what crosses it."""

    DROP = "connections die silently"
    HOLD = "all waits until it is over"


@attrs.define(eq=False, repr=False)
class Partition:
    """Nodes of *side* and all others do not reach each other."""

    side: tuple[int, ...]
    cut: Cut
    hit: Callable[[], None] = lambda: None

    def parts(self, one: int, other: int) -> bool:
        """Whether it lies between two nodes."""
        return (one in self.side) != (other in self.side)


@attrs.define(eq=False, repr=False)
class Connection:
    """Two ends, and whether anything still passes between them."""

    number: int
    draws: Stream
    chopped: bool
    is_dead: bool = False
    ends: list[End] = attrs.Factory(list)


@attrs.define(eq=False, repr=False)
class End:
    """One end; *backlog* arrived and was not taken, because of a pause or a partition."""

    network: Network
    connection: Connection
    node: int
    peer_node: int
    receiver: Receiver | None = None
    is_open: bool = True
    is_paused: bool = False
    backlog: deque[Any] = attrs.Factory(deque)
    last_arrival_us: int = 0
    _void_noticed: bool = False

    @property
    def peer(self) -> End:
        """The other end."""
        first, second = self.connection.ends
        return second if self is first else first

    def send(self, payload: Any) -> None:
        """Send; into the void if the connection is dead."""
        if not self.is_open:
            return
        if self.connection.is_dead:
            if not self._void_noticed:
                self._void_noticed = True
                delay_us = self.connection.draws.between(*RETRANSMISSION_US)
                self.network.world.after(delay_us, self.lose)
            return
        if self.connection.chopped and isinstance(payload, bytes):
            for piece in _pieces(payload, self.connection.draws):
                self._send(piece)
        else:
            self._send(payload)

    def _send(self, payload: Any) -> None:
        peer, world = self.peer, self.network.world
        latency_us = self.network.latency_us(self.connection.draws)
        peer.last_arrival_us = max(world.now_us + latency_us, peer.last_arrival_us + 1)
        world.at(peer.last_arrival_us, peer.arrive, payload)

    def arrive(self, payload: Any) -> None:
        """Something reached this end's host."""
        if not self.is_open or self.connection.is_dead:
            return
        self.backlog.append(payload)
        self.drain()

    def drain(self) -> None:
        """Hand on what arrived, unless something holds it up."""
        while self.backlog and self.is_open and not self.is_paused:  # a receiver may pause or close
            if self.network.holds(self):
                return
            assert self.receiver is not None
            self.receiver.received(self.backlog.popleft())

    def pause(self) -> None:
        """Take nothing until resume."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on taking, soon: never from within a call."""
        self.is_paused = False
        self.network.world.after(0, self.drain)

    def close(self) -> None:
        """Close in order: the peer gets what was sent, and then learns of it."""
        self._shut()
        peer = self.peer
        latency_us = self.network.latency_us(self.connection.draws)
        at_us = max(self.network.world.now_us + latency_us, peer.last_arrival_us + 1)
        if not self.connection.is_dead:
            self.network.world.at(at_us, peer.lose)

    def abandon(self) -> None:
        """The process died, its host's kernel says so: what it sent may have arrived or not."""
        self._shut()
        peer, world = self.peer, self.network.world
        if not self.connection.is_dead:
            span_us = max(0, peer.last_arrival_us - world.now_us)
            world.after(self.connection.draws.below(span_us + 1) + 1, peer.lose)

    def vanish(self) -> None:
        """The host is gone without a word."""
        self._shut()
        self.network.kill(self.connection)

    def lose(self) -> None:
        """Learn that the connection is gone."""
        if self.is_open:
            if self.backlog and self.network.holds(self):
                # The word that it is over has to cross the partition as well.
                self.network.world.after(self.connection.draws.between(10 * MS, 500 * MS), self.lose)
                return
            self._shut()
            assert self.receiver is not None
            self.receiver.lost()

    def _shut(self) -> None:
        self.is_open = False
        self.backlog.clear()
        if not self.peer.is_open:
            self.network.connections.pop(self.connection.number, None)


def _pieces(payload: bytes, draws: Stream) -> list[bytes]:
    """Cut *payload* at up to two places."""
    cuts = sorted(draws.below(len(payload) + 1) for _ in range(draws.below(3)))
    edges = [0, *cuts, len(payload)]
    return [payload[a:b] for a, b in itertools.pairwise(edges) if a < b]


@attrs.define(eq=False, repr=False)
class Network:
    """All connections of a world; *slow_us* is added to every latency."""

    world: World
    seed: int
    connections: dict[int, Connection] = attrs.Factory(dict)
    listeners: dict[str, tuple[int, Listener | None]] = attrs.Factory(dict)  # address -> node, who accepts
    dark: dict[int, None] = attrs.Factory(dict)  # nodes without power
    partitions: list[Partition] = attrs.Factory(list)
    least_us: int = 100
    most_us: int = 8 * MS
    _number: int = 0

    def latency_us(self, draws: Stream) -> int:
        """Draw how long one message takes; one in 200 takes twenty times as long."""
        latency_us = draws.long_tail(self.least_us, self.most_us)
        return latency_us * 20 if draws.below(200) == 0 else latency_us

    def holds(self, end: End) -> bool:
        """Whether a partition holds up what arrives at *end*."""
        for partition in self.partitions:
            if partition.parts(end.node, end.peer_node):
                partition.hit()
                return True
        return False

    def between(self, one: int, other: int) -> Partition | None:
        """Return a partition between two nodes, if there is one."""
        return next((partition for partition in self.partitions if partition.parts(one, other)), None)

    # ---- opening -------------------------------------------------------------------------------

    def connect(
        self, node: int, address: str, receiver: Receiver, done: Callable[[End | None], None]
    ) -> None:
        """Open a connection; *done* gets our end, or None when it was refused or nobody answered."""
        self._number += 1
        number = self._number
        draws = Stream.of(self.seed, "connection", node, number)
        self.world.after(self.latency_us(draws), self._reach, number, node, address, receiver, done, draws)

    def _reach(
        self,
        number: int,
        node: int,
        address: str,
        receiver: Receiver,
        done: Callable[[End | None], None],
        draws: Stream,
    ) -> None:
        server, listener = self.listeners.get(address, (-1, None))
        partition = self.between(node, server) if server >= 0 else None
        if partition is not None or server in self.dark:
            if partition is not None:
                partition.hit()
            self.world.after(draws.between(*CONNECT_TIMEOUT_US), done, None)
            return
        if listener is None:
            self.world.after(self.latency_us(draws), done, None)
            return
        connection = Connection(number, draws, draws.chance(CHOPPED_PPM))
        ours = End(self, connection, node, server, receiver)
        theirs = End(self, connection, server, node)
        connection.ends = [ours, theirs]
        self.connections[number] = connection
        # What the server sends at once must not overtake the news that we are connected.
        ours.last_arrival_us = self.world.now_us + self.latency_us(draws)
        self.world.at(ours.last_arrival_us, self._connected, ours, done)
        listener.accept(theirs)

    def _connected(self, end: End, done: Callable[[End | None], None]) -> None:
        done(end if end.is_open else None)

    # ---- breaking ------------------------------------------------------------------------------

    def kill(self, connection: Connection) -> None:
        """Let nothing pass any more; each end learns of it when it sends, or by a keep-alive."""
        if not connection.is_dead:
            connection.is_dead = True
            for end in connection.ends:
                if end.is_open:
                    self.world.after(connection.draws.between(*KEEP_ALIVE_US), end.lose)

    def reset(self, connection: Connection, *, half_open: bool) -> None:
        """Break a connection; both ends learn of it soon, or one of them much later."""
        told = list(connection.ends)
        if half_open:
            told = [connection.ends[connection.draws.below(2)]]
        self.kill(connection)
        for end in told:
            self.world.after(self.latency_us(connection.draws), end.lose)

    def part(self, partition: Partition) -> None:
        """Begin a partition."""
        self.partitions.append(partition)
        if partition.cut is Cut.DROP:
            for connection in list(self.connections.values()):
                if partition.parts(connection.ends[0].node, connection.ends[1].node):
                    partition.hit()
                    self.kill(connection)

    def heal(self, partition: Partition) -> None:
        """End a partition; what was held goes on its way."""
        self.partitions.remove(partition)
        for connection in list(self.connections.values()):
            for end in connection.ends:
                if end.backlog:
                    self.world.after(self.latency_us(connection.draws), end.drain)
