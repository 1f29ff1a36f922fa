"""The servers of a simulated cluster, drawn from the seed: registry, coordinator, tablet servers.

Each is a process of its own, on a host of its own, with its own disk and clocks. Shapes are small on
purpose: small clusters find most bugs, and run a thousand times an hour.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import attrs

from flussd.core.coordinator.coordinator import Coordinator, CoordinatorConfig
from flussd.core.edge.requests import Edge
from flussd.core.limits import AHEAD_BYTES_MIN, MERGE_SLICE_RECORDS, RECOVERY_READ_BYTES
from flussd.core.machine import Announce
from flussd.core.registry.registry import RegistryMachine
from flussd.core.replica.stored import Durability
from flussd.core.tablet.config import TabletConfig
from flussd.core.tablet.restore import USUAL_PACE, Pace
from flussd.core.tablet.tablet import TabletServer
from flussd.core.wire import private
from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.network import Network
from flussd.runtime_sim.nodes import Node
from flussd.runtime_sim.world import MS, World

REGISTRY: Final = 0
COORDINATOR: Final = 1
FIRST_TABLET: Final = 2
FIRST_CLIENT: Final = 10
"""Numbers of nodes; tablet server 0 is node 2."""

COORDINATOR_ADDRESS: Final = "coordinator:9123"
PRIVATE_OF_TABLETS: Final = frozenset({private.UPDATE_CATALOG, private.AWAIT_REPORTS})


@attrs.frozen
class Shape:
    """What a seed makes of the knobs."""

    tablet_count: int
    slice_buckets: int
    durability: Durability
    segment_bytes: int
    checkpoint_bytes: int
    checkpoint_pause_ms: int
    registry_log_bytes: int
    writer_id_block: int
    retention_interval_ms: int
    registry_room_bytes: int
    auto_partition_check_ms: int
    restore_pace: Pace
    ahead_bytes_min: int
    merge_slice_records: int
    recovery_read_bytes: int

    @classmethod
    def drawn(cls, seed: int) -> Shape:
        """Draw the shape of the cluster of *seed*."""
        draws = Stream.of(seed, "shape")
        return cls(
            tablet_count=draws.choice((1, 1, 2, 3)),
            slice_buckets=Stream.of(seed, "slice").choice((1, 1, 32)),
            durability=draws.choice((Durability.PAGE_CACHE, Durability.GROUP_FSYNC)),
            segment_bytes=draws.choice((4_000, 16_000, 64_000, 1_000_000)),
            checkpoint_bytes=draws.choice((3_000, 20_000, 1_000_000)),
            checkpoint_pause_ms=Stream.of(seed, "checkpoint pause").choice((0, 20, 500, 5_000)),
            registry_log_bytes=draws.choice((4_000, 30_000, 1_000_000)),
            writer_id_block=draws.choice((1, 5, 1_000)),
            retention_interval_ms=draws.choice((300_000, 300_000, 700)),
            registry_room_bytes=draws.choice((100, 2_000, 64 * 1024)),
            auto_partition_check_ms=draws.choice((500, 3_000)),
            restore_pace=Stream.of(seed, "restore pace").choice(
                (USUAL_PACE, Pace(200, 1, 1), Pace(200, 1, 2), Pace(2_000, 10))
            ),
            ahead_bytes_min=Stream.of(seed, "read ahead").choice((1, 1, AHEAD_BYTES_MIN)),
            merge_slice_records=Stream.of(seed, "merge slices").choice((1, 2, MERGE_SLICE_RECORDS)),
            recovery_read_bytes=Stream.of(seed, "recovery reads").choice((64, 300, RECOVERY_READ_BYTES)),
        )


@attrs.define(eq=False, repr=False)
class Cluster:
    """The servers of one run."""

    world: World
    network: Network
    shape: Shape
    nodes: list[Node] = attrs.Factory(list)  # by number

    def __attrs_post_init__(self) -> None:
        shape = self.shape
        log_bytes, room_bytes = shape.registry_log_bytes, shape.registry_room_bytes
        self._add("registry", partial(RegistryMachine, log_bytes_max=log_bytes, room_bytes=room_bytes))
        config = CoordinatorConfig(
            "coordinator",
            9123,
            tablets_expected=shape.tablet_count,
            auto_partition_check_ms=shape.auto_partition_check_ms,
            slice_buckets=shape.slice_buckets,
        )
        self._add(
            "coordinator",
            partial(Coordinator, config),
            Edge(1, SERVED_BY_COORDINATOR),
            COORDINATOR_ADDRESS,
            "memory:coordinator",
        )
        for server_id in range(shape.tablet_count):
            self._add_tablet(server_id)

    def _add_tablet(self, server_id: int) -> None:
        config = TabletConfig(
            server_id=server_id,
            host=f"tablet-{server_id}",
            port=9124,
            internal_address=f"memory:{server_id}",
            durability=self.shape.durability,
            segment_bytes=self.shape.segment_bytes,
            writer_id_block=self.shape.writer_id_block,
            checkpoint_bytes=self.shape.checkpoint_bytes,
            checkpoint_pause_ms=self.shape.checkpoint_pause_ms,
            retention_interval_ms=self.shape.retention_interval_ms,
            restore_pace=self.shape.restore_pace,
            merge_slice_records=self.shape.merge_slice_records,
            recovery_read_bytes=self.shape.recovery_read_bytes,
        )
        edge = Edge(2, SERVED_BY_TABLET, PRIVATE_OF_TABLETS)
        self._add(
            f"tablet-{server_id}",
            partial(TabletServer, config),
            edge,
            f"tablet-{server_id}:9124",
            config.internal_address,
        )

    def _add(
        self, name: str, make: Any, edge: Edge | None = None, address: str = "", internal: str = ""
    ) -> None:
        node = Node(len(self.nodes), name, self.network, make, edge, address, internal)
        node.ahead_bytes_min = self.shape.ahead_bytes_min
        self.nodes.append(node)

    @property
    def registry(self) -> Node:
        """The registry's node."""
        return self.nodes[REGISTRY]

    @property
    def coordinator(self) -> Node:
        """The coordinator's node."""
        return self.nodes[COORDINATOR]

    @property
    def tablets(self) -> list[Node]:
        """The tablet servers' nodes, by id."""
        return self.nodes[FIRST_TABLET:]

    def start(self) -> None:
        """Start all servers within a moment, in any order."""
        draws = Stream.of(self.world.seed, "start")
        for node in self.nodes:
            self.world.after(draws.below(200 * MS), node.start)

    def is_ready(self) -> bool:
        """Whether the coordinator has announced that all is well."""
        process = self.coordinator.process
        if process is None:
            return False
        return any(isinstance(what, Announce) and what.what == "ready" for what in process.announced)
