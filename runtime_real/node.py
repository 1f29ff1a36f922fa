"""One node of a process: a machine, its driver, and the ports of both.

The caller owes it: `start` on the hub's thread, and the end of the process after an announced Fatal.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import attrs

from flussd.core.driver import Driver, Ports
from flussd.core.edge.requests import Edge
from flussd.core.machine import Announce, Fatal, Machine, Started, Stopped
from flussd.runtime_real.clock import NodeClock
from flussd.runtime_real.disk import FileDisk
from flussd.runtime_real.hub import Hub
from flussd.runtime_real.network import Addresses, NodeNetwork
from flussd.runtime_real.registry import RegistryLink, RegistrySessions

Announced = Callable[["Node", Announce | Stopped | Fatal], None]


@attrs.define(eq=False)
class Node:
    """A running node; *network* and *link* are None for the registry's."""

    name: str
    driver: Driver
    disk: FileDisk
    network: NodeNetwork | None = None
    link: RegistryLink | None = None
    states: dict[str, None] = attrs.Factory(dict)  # what it announced, in order

    def start(self, *, boot_id: str, directory_id: str) -> None:
        """Ask for a session, where there is a registry to ask, and let the machine begin."""
        if self.link is not None:
            self.link.open()
        wall_ms = self.driver.ports.clock.wall_ms()
        self.driver.start(Started(wall_ms, boot_id, directory_id, secrets.randbits(64)))

    def shut(self) -> None:
        """Close connections and the session; the machine has stopped."""
        if self.network is not None:
            self.network.shut()
        if self.link is not None:
            self.link.close()


def registry_node(
    hub: Hub, folder: Path, machine: Machine, sessions: RegistrySessions, announced: Announced
) -> Node:
    """Wire the registry's node."""
    clock = NodeClock(hub.time)
    disk = FileDisk(folder, hub.workers, later=hub.behind)
    ports = Ports(clock, disk, sessions=sessions, later=hub.behind)
    node = _wired(hub, "registry", Driver(machine, ports), disk, announced)
    hub.add_alarm(clock, node.driver)
    return node


def server_node(
    hub: Hub,
    name: str,
    folder: Path,
    machine: Machine,
    edge: Edge,
    *,
    addresses: Addresses,
    internal_address: str,
    link: RegistryLink,
    announced: Announced,
) -> Node:
    """Wire a coordinator's or a tablet server's node; the link comes without its node."""
    clock = NodeClock(hub.time)
    disk = FileDisk(folder, hub.workers, later=hub.behind)
    network = NodeNetwork(hub, addresses, internal_address)
    ports = Ports(clock, disk, network=network, registry=link, later=hub.behind)
    node = _wired(hub, name, Driver(machine, ports, edge), disk, announced)
    network.driver = link.node = node.driver
    node.network, node.link = network, link
    hub.add_alarm(clock, node.driver)
    return node


def _wired(hub: Hub, name: str, driver: Driver, disk: FileDisk, announced: Announced) -> Node:
    node = Node(name, driver, disk)
    disk.run = driver.run

    def announce(effect: Announce | Stopped | Fatal) -> None:
        if isinstance(effect, Announce):
            node.states[effect.what] = None
        hub.soon(announced, node, effect)  # never from within the step

    driver.ports.announce = announce
    return node
