"""A whole cluster in one process: registry, coordinator and tablet servers, each with its folder.

They start in this order, each when what it needs is ready, and stop in the opposite one. The caller
owes it: `run` on one thread under trio, all other calls on the same thread, and the end of the
process (or of the cluster's use) after an exception out of `run`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.coordinator import Coordinator
from flussd.core.driver import Driver
from flussd.core.edge.requests import Edge
from flussd.core.machine import Announce, Fatal, Stopped
from flussd.core.records.descriptor import ClusterDefaults
from flussd.core.registry.registry import RegistryMachine
from flussd.core.replica.stored import Durability
from flussd.core.tablet.config import TabletConfig
from flussd.core.tablet.tablet import TabletServer
from flussd.core.wire import private
from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET
from flussd.runtime_real import datadir
from flussd.runtime_real.announced import Announcements
from flussd.runtime_real.config import Options
from flussd.runtime_real.datadir import DataDirectory
from flussd.runtime_real.descriptors import shares
from flussd.runtime_real.hub import Hub
from flussd.runtime_real.logs import tell
from flussd.runtime_real.network import Addresses
from flussd.runtime_real.node import Node, registry_node, server_node
from flussd.runtime_real.registry import RegistryLink, RegistrySessions
from flussd.runtime_real.zones import system_zones

STOP_MS_MAX: Final = 10_000
"""How long an orderly stop may take; what is not durable by then counts as killed."""

PRIVATE_OF_TABLETS: Final = frozenset({private.UPDATE_CATALOG, private.AWAIT_REPORTS})
"""What the coordinator asks of a tablet server."""

RECOVERED: Final = "recovered"
READY: Final = "ready"
REGISTERED: Final = "registered"
SERVES: Final = {"registry": RECOVERED, "coordinator": READY}
"""What each kind of node announces once it serves; a tablet server is REGISTERED."""

FOUND_ITS_ROLE: Final = frozenset({"active", "standby"})
"""The coordinator made the nodes below which tablet servers register, or another one did."""


class NodeFailed(Exception):  # noqa: N818 - a fact, as events are
    """A machine found that its node cannot go on; the text is for the user."""


@attrs.define(eq=False)
class LocalCluster:
    """One cluster; *listening* holds the coordinator's socket, then one for each tablet server.

    *host* is where clients are told to find all of them.
    """

    data: DataDirectory
    host: str
    listening: list[socket.socket]
    options: Options = attrs.Factory(Options)
    on_ready: Callable[[], None] = lambda: None
    hub: Hub = attrs.Factory(Hub)
    nodes: list[Node] = attrs.Factory(list)
    is_ready: bool = False
    is_stopping: bool = False
    failure: NodeFailed | None = None
    announcements: Announcements = attrs.Factory(Announcements)
    _addresses: Addresses = attrs.Factory(Addresses)
    _sessions: RegistrySessions = attrs.field(init=False)
    _started: dict[int, None] = attrs.Factory(dict)  # positions in nodes
    _stopping: dict[int, None] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        if not __debug__:
            raise NodeFailed("flussd guards data with assertions: it does not run under python -O")
        self._sessions = RegistrySessions(self.hub)
        self.nodes.append(
            registry_node(
                self.hub,
                self.data.node_folder("registry"),
                RegistryMachine(),
                self._sessions,
                self._announced,
            )
        )
        self._add_coordinator()
        for server_id in range(self.data.tablet_count):
            self._add_tablet(server_id)

    # ---- what the caller sees ------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        """Where clients begin: `host:port` of the coordinator."""
        return f"{self.host}:{self._port(0)}"

    @property
    def tablet_addresses(self) -> tuple[str, ...]:
        """Return `host:port` of each tablet server."""
        return tuple(f"{self.host}:{self._port(1 + n)}" for n in range(self.data.tablet_count))

    @property
    def registry(self) -> Node:
        """Return the registry's node."""
        return self.nodes[0]

    @property
    def coordinator(self) -> Node:
        """Return the coordinator's node."""
        return self.nodes[1]

    @property
    def tablets(self) -> list[Node]:
        """Return the tablet servers' nodes, by id."""
        return self.nodes[2:]

    async def run(self) -> None:
        """Serve until `stop` is done; raise NodeFailed when a machine gave up."""
        self._start(self.registry)
        await self.hub.run()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Stop in order: tablet servers, coordinator, registry; within ten seconds."""
        self.hub.soon(self._stop)
        self.hub.wake()

    def _stop(self) -> None:
        if self.is_stopping:
            return
        self.is_stopping = True
        tell(logging.INFO, "cluster stopping")
        self.hub.call_at(self.hub.time.now_ms + STOP_MS_MAX, self._give_up)
        self._stop_next()

    def close(self) -> None:
        """Give back threads, files, sockets and the lock; `run` has ended."""
        for listening in self.listening:
            listening.close()
        for node in self.nodes:
            if node.network is not None:
                node.network.abandon()
        self.hub.close()
        for node in self.nodes:
            node.disk.close()
        self.data.close()

    def drivers(self) -> list[tuple[str, Driver]]:
        """Return the drivers with their names, for a crash report."""
        return [(node.name, node.driver) for node in self.nodes]

    def share_descriptors(self, limit: int) -> None:
        """Let files and connections share *limit* descriptors; call it before `run`."""
        shared = shares(limit, len(self.nodes))
        self.hub.sources_max = shared.sockets
        for node in self.nodes:
            node.disk.open_max = shared.files

    # ---- wiring --------------------------------------------------------------------------------

    def _port(self, n: int) -> int:
        return int(self.listening[n].getsockname()[1])

    def _add_coordinator(self) -> None:
        config = CoordinatorConfig(
            host=self.host,
            port=self._port(0),
            tablets_expected=self.data.tablet_count,
            defaults=ClusterDefaults(
                default_bucket_number=self.options.default_bucket_count,
                default_replication_factor=self.options.default_replication_factor,
            ),
            zones=system_zones,
            settings=(
                ("log.durability", self.options.durability),
                ("log.segment.file-size", f"{self.options.segment_bytes}b"),
            ),
        )
        self._add_server(
            "coordinator", Coordinator(config), Edge(1, SERVED_BY_COORDINATOR), "memory:coordinator"
        )

    def _add_tablet(self, server_id: int) -> None:
        address = f"memory:{server_id}"
        config = TabletConfig(
            server_id=server_id,
            host=self.host,
            port=self._port(1 + server_id),
            internal_address=address,
            durability=Durability(self.options.durability),
            segment_bytes=self.options.segment_bytes,
        )
        self._add_server(
            f"tablet-{server_id}",
            TabletServer(config),
            Edge(2, SERVED_BY_TABLET, PRIVATE_OF_TABLETS),
            address,
        )

    def _add_server(self, name: str, machine: Any, edge: Edge, internal_address: str) -> None:
        link = RegistryLink(len(self.nodes), self.hub, self.registry.driver)
        self._sessions.links[link.number] = link
        self.nodes.append(
            server_node(
                self.hub,
                name,
                self.data.node_folder(name),
                machine,
                edge,
                addresses=self._addresses,
                internal_address=internal_address,
                link=link,
                announced=self._announced,
            )
        )

    def _start(self, node: Node) -> None:
        tell(logging.INFO, "starting", node=node.name, folder=str(node.disk.folder))
        node.start(boot_id=datadir.boot_id(), directory_id=self.data.node_directory_id(node.name))

    # ---- what the machines announce ------------------------------------------------------------

    def _announced(self, node: Node, effect: Announce | Stopped | Fatal) -> None:
        if isinstance(effect, Fatal):
            self.failure = NodeFailed(f"{node.name}: {effect.text.removeprefix(node.name + ': ')}")
            self.hub.stop()
        elif isinstance(effect, Stopped):
            self._stopped(node)
        else:
            self.announcements.add(node.name, effect)
            self._go_on(node, effect.what)

    def _go_on(self, node: Node, what: str) -> None:
        """Start what *node*'s new state makes possible, and see whether all serve."""
        if node is self.registry and what == RECOVERED:
            self._start_server(1)
        elif node is self.coordinator and what in FOUND_ITS_ROLE:
            for n in range(2, len(self.nodes)):
                self._start_server(n)
        if not self.is_ready and all(self._serves(one) for one in self.nodes):
            self.is_ready = True
            tell(logging.INFO, "cluster ready", bootstrap_servers=self.bootstrap_servers)
            self.on_ready()

    def _serves(self, node: Node) -> bool:
        return SERVES.get(node.name, REGISTERED) in node.states

    def _start_server(self, n: int) -> None:
        if self.is_stopping or n in self._started:
            return
        self._started[n] = None
        network = self.nodes[n].network
        assert network is not None
        network.listen(self.listening[n - 1])
        self._start(self.nodes[n])

    def _stopped(self, node: Node) -> None:
        node.shut()
        tell(logging.INFO, "stopped", node=node.name)
        if node is self.registry:
            self.hub.stop()
        elif self.is_stopping:
            self._stop_next()

    def _stop_next(self) -> None:
        """Stop the last kind of nodes that runs: tablet servers, then the coordinator, the registry."""
        running = [n for n in self._started if not self.nodes[n].driver.halted]
        for n in [n for n in running if n > 1] or running or [0]:
            if n not in self._stopping:
                self._stopping[n] = None
                self.nodes[n].driver.stop()

    def _give_up(self) -> None:
        late = ", ".join(node.name for node in self.nodes if not node.driver.halted)
        tell(logging.WARNING, "did not stop in time", late, limit_ms=STOP_MS_MAX)
        self.hub.stop()
