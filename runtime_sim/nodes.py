"""Nodes: what outlives a process (name, disk, clocks, addresses), and how processes start and end.

A crash ends the process, and the page cache survives; a power loss takes the unsynced bytes too, and nobody
is told. A node that fell is started again by its supervisor. The caller owes it `start` once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs

from flussd.core.driver import Ports
from flussd.core.edge.requests import Edge
from flussd.core.limits import AHEAD_BYTES_MIN
from flussd.core.machine import Fatal, Machine, Started
from flussd.runtime_sim.clocks import HostClock, ProcessClock
from flussd.runtime_sim.disk import HostDisk, ProcessDisk
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.media import Media
from flussd.runtime_sim.network import End, Network
from flussd.runtime_sim.processes import Process, ProcessNetwork, SimDriver
from flussd.runtime_sim.registry_link import REGISTRY_ADDRESS, RegistryDoor, RegistryLink
from flussd.runtime_sim.world import MS, World

AFTER_FATAL_US: Final = (200 * MS, 2_000 * MS)
"""Pause of a supervisor before it starts a process again that gave up by itself."""

TURN_US_MAX: Final = 1_000
"""How long what a process put off may wait for others."""


@attrs.define(eq=False, repr=False)
class Door:
    """A listener of a server: for clients, or for the servers of the cluster."""

    port: ProcessNetwork
    internal: bool

    def accept(self, end: End) -> None:
        """A peer connected."""
        self.port.accept(end, internal=self.internal)


@attrs.define(eq=False, repr=False)
class Node:
    """One node; *make* builds the machine of each of its processes, *edge* is None for the registry."""

    number: int
    name: str
    network: Network
    make: Callable[[], Machine]
    edge: Edge | None = None
    address: str = ""
    internal_address: str = ""
    world: World = attrs.field(init=False)
    clock: HostClock = attrs.field(init=False)
    disk: HostDisk = attrs.field(init=False)
    process: Process | None = None
    boot_count: int = 0
    process_count: int = 0
    ahead_bytes_min: int = AHEAD_BYTES_MIN  # see ahead.py
    is_powered: bool = True
    restart_after_us: int = 0  # of a death that was ordered
    on_started: Callable[[Node], None] = lambda _: None
    on_ended: Callable[[Node, Process], None] = lambda _node, _process: None
    on_delivered: Callable[[Node], None] = lambda _: None
    _draws: Stream = attrs.field(init=False)
    _turns: Stream = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.world = self.network.world
        seed = self.world.seed
        self.clock = HostClock(self.world, Stream.of(seed, "clock", self.number))
        media = Media(Stream.of(seed, "media", self.number))
        self.disk = HostDisk(self.world, Stream.of(seed, "disk", self.number), media)
        self._draws = Stream.of(seed, "node", self.number)
        self._turns = Stream.of(seed, "turns", self.number)
        self.clock.wall_offset_ms = self._draws.between(-2_000, 2_000)
        self._boot()

    def _boot(self) -> None:
        self.boot_count += 1
        self.clock.boot()

    @property
    def machine(self) -> Any:
        """The machine of the running process."""
        assert self.process is not None
        return self.process.driver.machine

    @property
    def is_up(self) -> bool:
        """Whether a process runs."""
        return self.process is not None

    # ---- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process, unless one runs."""
        if self.process is not None:
            return
        if not self.is_powered:
            self.is_powered = True
            self.network.dark.pop(self.number, None)
            self._boot()
        self.process_count += 1
        process = Process(self.world, self.number, self.name)
        self.process = process
        clock = ProcessClock(self.clock, process.ring)
        disk = ProcessDisk(self.disk, process.enter)
        ports = Ports(clock, disk, announce=process.announce, later=partial(self._later, process))
        process.driver = SimDriver(self.make(), ports, self.edge, process=process)
        process.driver.files.ahead.least_bytes = self.ahead_bytes_min
        disk.run = process.driver.run
        process.on_death = self._died
        process.on_delivered = self._delivered
        self._wire(process, ports)
        self.world.story.line(self.world.now_us, self.name, "start", f"process {self.process_count}")
        self.on_started(self)
        started = Started(
            clock.wall_ms(), f"boot-{self.name}-{self.boot_count}", f"dir-{self.name}", self._draws.bits()
        )
        process.enter(process.driver.start, started)

    def _later(self, process: Process, call: Callable[..., None], *arguments: Any) -> None:
        """Let a process go on with what it put off, when others had their turn."""
        self.world.after(self._turns.below(TURN_US_MAX), process.enter, call, *arguments)

    def _wire(self, process: Process, ports: Ports) -> None:
        listeners = self.network.listeners
        if self.edge is None:
            door = RegistryDoor(process)
            ports.sessions = door
            listeners[REGISTRY_ADDRESS] = (self.number, door)
            return
        port = ProcessNetwork(process, self.network)
        link = RegistryLink(process, self.network, Stream.of(self.world.seed, "link", self.number))
        ports.network, ports.registry = port, link
        listeners[self.address] = (self.number, Door(port, internal=False))
        listeners[self.internal_address] = (self.number, Door(port, internal=True))
        link.open()

    def _delivered(self) -> None:
        self.on_delivered(self)

    def _died(self) -> None:
        """The process ended: at an effect where that was ordered, or because it gave up."""
        assert self.process is not None
        if isinstance(self.process.announced[-1] if self.process.announced else None, Fatal):
            self.restart_after_us = self._draws.between(*AFTER_FATAL_US)
            self.world.count("gave up")
        self.crash()

    def _end(self) -> list[End]:
        process = self.process
        assert process is not None
        self.process = None
        process.is_dead = True
        for address in (self.address, self.internal_address) if self.edge else (REGISTRY_ADDRESS,):
            # The kernel of a host with power refuses; one without does not answer (Network.dark).
            self.network.listeners[address] = (self.number, None)
        self.on_ended(self, process)
        return list(process.ends)

    def crash(self) -> None:
        """Kill the process; the page cache survives."""
        self.world.story.line(self.world.now_us, self.name, "killed", "")
        for end in self._end():
            end.abandon()
        self.disk.end_process()
        self.world.after(self.restart_after_us, self.start)

    def cut_power(self) -> None:
        """Cut the host's power; a restart is a boot."""
        if self.process is not None:
            for end in self._end():
                end.vanish()
        self.is_powered = False
        self.network.dark[self.number] = None
        hit = self.disk.cut_power()
        self.world.story.line(self.world.now_us, self.name, "power", f"{hit} pending operations hit")
        self.world.after(self.restart_after_us, self.start)
