"""The numbers of a running cluster at one moment, as plain values.

Taken on the hub's thread between two wake-ups, so that they belong together; it must be quick, some
microseconds a bucket. What becomes of them is the page's matter, in another thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.coordinator.coordinator import Coordinator
from flussd.core.coordinator.coordinator import Role as CoordinatorRole
from flussd.core.edge.meter import ApiCounts
from flussd.core.replica.counts import BucketCounts
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Role
from flussd.core.tablet.fetch import FetchWaiter
from flussd.core.tablet.produce import ProduceWaiter
from flussd.core.tablet.tablet import TabletServer
from flussd.runtime_real.cluster import REGISTERED, LocalCluster
from flussd.runtime_real.meters import SlowWakeUps, api_name
from flussd.runtime_real.node import Node

Place: TypeAlias = tuple[str, str]  # database and table; empty while the catalog does not know them

INTERNAL: Final = "internal"
CLIENT: Final = "client"


@attrs.frozen
class ApiRow:
    """One API of one server."""

    key: int
    name: str
    counts: ApiCounts  # a copy


@attrs.define(eq=False)  # not frozen: there may be many, and the hub waits while they are made
class BucketRow:
    """One bucket of one tablet server."""

    place: Place
    partition: str
    bucket: int
    role: str
    segment_count: int
    start_offset: int
    end_offset: int
    high_watermark: int
    size_bytes: int
    writer_count: int


@attrs.frozen
class NodeRow:
    """What every node has."""

    name: str
    server_id: int
    apis: tuple[ApiRow, ...]
    connections: dict[str, int]
    accepted_count: int
    operations: dict[str, int]
    waiting_operation_count: int
    sync_count: int
    failed_sync_count: int
    sync_sum_ns: int
    sync_times_ns: tuple[int, ...]
    unserved_count: int
    answer_bytes: int
    errors: dict[int, int]


@attrs.frozen
class TabletRow:
    """A tablet server's own."""

    node: NodeRow
    is_registered: bool
    buckets: tuple[BucketRow, ...]
    tables: dict[Place, BucketCounts]
    total: BucketCounts
    parked: dict[str, int]
    expired_writes: int
    expired_fetches: int


@attrs.frozen
class CoordinatorRow:
    """The coordinator's own."""

    node: NodeRow
    is_active: bool
    live_server_count: int
    tables: dict[Place, tuple[int, int]]  # -> buckets, partitions
    bucket_count: int
    partition_count: int
    offline_bucket_count: int
    awaited_leader_count: int
    replicas_to_delete_count: int


@attrs.frozen
class Snapshot:
    """All of it."""

    now_ms: int
    why_not_ready: tuple[str, ...]
    registry: NodeRow
    coordinator: CoordinatorRow
    tablets: tuple[TabletRow, ...]
    announcements: dict[tuple[str, str], int]
    cut_bytes: dict[str, int]
    slow_count: int
    slow_sum_ns: int


def take(cluster: LocalCluster, slow: SlowWakeUps) -> Snapshot:
    """Take a snapshot; on the hub's thread, between wake-ups."""
    return Snapshot(
        cluster.hub.time.sample(),
        why_not_ready(cluster),
        _node(cluster.registry, -1),
        _coordinator(cluster.coordinator),
        tuple(_tablet(node, n) for n, node in enumerate(cluster.tablets)),
        dict(cluster.announcements.counts),
        dict(cluster.announcements.cut_bytes),
        slow.count,
        slow.sum_ns,
    )


def why_not_ready(cluster: LocalCluster) -> tuple[str, ...]:
    """Return what keeps the cluster from serving now; nothing when it serves."""
    if cluster.is_stopping:
        return ("stopping",)
    if not cluster.is_ready:
        waiting = [node.name for node in cluster.nodes if not node.states]
        return ("starting", *(f"{name} has not started" for name in waiting))
    found = [f"{node.name} stopped" for node in cluster.nodes if node.driver.halted]
    if _machine(cluster.coordinator).role is not CoordinatorRole.ACTIVE:
        found.append("the coordinator is not active")
    homeless = [node.name for node in cluster.tablets if _machine(node).registration.incarnation < 0]
    return (*found, *(f"{name} is not {REGISTERED}" for name in homeless))


def sums(snapshot: Snapshot) -> dict[Hashable, int]:
    """Return all that grows, for rates; the keys are the page's."""
    found: dict[Hashable, int] = {}
    for tablet in snapshot.tablets:
        who = tablet.node.server_id
        for name, value in attrs.asdict(tablet.total).items():
            found[who, name] = value
        found[who, "expired_writes"] = tablet.expired_writes
        found[who, "expired_fetches"] = tablet.expired_fetches
        found[who, "syncs"] = tablet.node.sync_count
        for place, counts in tablet.tables.items():
            for name, value in attrs.asdict(counts).items():
                found[who, place, name] = value
        for api in tablet.node.apis:
            found[who, api.key] = api.counts.request_count
    return found


def _machine(node: Node) -> Any:
    return node.driver.machine


def _node(node: Node, server_id: int) -> NodeRow:
    meter, network, link, syncs = node.driver.meter, node.network, node.link, node.disk.syncs
    assert meter is not None, "meters are attached before the cluster runs"
    clients = 0 if network is None else network.client_count
    ends = 0 if network is None else len(network.ends)
    return NodeRow(
        node.name,
        server_id,
        tuple(_api(key, counts) for key, counts in meter.apis.items()),
        {CLIENT: clients, INTERNAL: ends - clients},
        0 if network is None else network.accepted_count,
        {} if link is None else dict(link.operations),
        0 if link is None else link.waiting_count,
        syncs.count,
        syncs.failed_count,
        syncs.sum_ns,
        tuple(syncs.latest_ns),
        meter.unserved.request_count,
        meter.answer_bytes,
        dict(meter.errors),
    )


def _api(key: int, counts: ApiCounts) -> ApiRow:
    return ApiRow(key, api_name(key), attrs.evolve(counts, times_ns=counts.times_ns.copy()))


def _tablet(node: Node, server_id: int) -> TabletRow:
    machine: TabletServer = _machine(node)
    rows = []
    tables: dict[Place, BucketCounts] = {}
    total = attrs.evolve(machine.buckets.gone)
    for key, replica in machine.buckets.replicas.items():
        table = machine.catalog.table_by_id(key[0])
        place = ("", "") if table is None else table.path
        partition = machine.catalog.partitions.get(key[1])
        rows.append(_bucket(place, "" if partition is None else partition.name, replica))
        tables.setdefault(place, BucketCounts()).add(replica.counts)
        total.add(replica.counts)
    waiters = Counter(type(waiter) for waiter in machine.parked.waiters.values())
    return TabletRow(
        _node(node, server_id),
        machine.registration.incarnation >= 0,
        tuple(rows),
        tables,
        total,
        {"produce": waiters[ProduceWaiter], "fetch": waiters[FetchWaiter]},
        machine.produces.expired_count,
        machine.fetches.expired_count,
    )


def _bucket(place: Place, partition: str, replica: Replica) -> BucketRow:
    log = replica.log
    return BucketRow(
        place,
        partition,
        replica.key[2],
        replica.role.name.lower(),
        len(log.segments),
        log.start_offset,
        log.end_offset,
        replica.high_watermark,
        log.size_bytes,
        len(replica.writers.states),
    )


def _coordinator(node: Node) -> CoordinatorRow:
    machine: Coordinator = _machine(node)
    state = machine.state
    catalog = state.catalog
    counts = Counter(key[0] for key in catalog.buckets)
    names = catalog.partition_names
    tables = {t.path: (counts[t.table_id], len(names.get(t.table_id, ()))) for t in catalog.by_id.values()}
    return CoordinatorRow(
        _node(node, machine.config.server_id),
        machine.role is CoordinatorRole.ACTIVE,
        len(state.servers),
        tables,
        len(catalog.buckets),
        len(catalog.partitions),
        len(state.unelected),
        sum(map(len, state.awaited.values())),
        sum(map(len, state.undeleted.values())),
    )


ROLES: Final = tuple(role.name.lower() for role in Role)
"""All that a bucket can be, so that each is shown, at zero too."""
