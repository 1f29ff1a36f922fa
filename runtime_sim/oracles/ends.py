"""What must hold when all is over: everybody got on, servers serve, and nothing is left behind.

Looks into the machines, which is what a leak needs; it must change nothing. The caller owes it a world in
which faults have ended, and for `leaks` one that clients have left a while ago.
"""

from __future__ import annotations

from typing import Any

from flussd.core.replica.stored import Role
from flussd.core.tablet.buckets import ROOT, CheckpointsWaiter, key_of
from flussd.core.tablet.kv_scan import ScannerWaiter
from flussd.core.tablet.reports import ReportsWaiter
from flussd.core.tablet.tablet import RetentionWaiter
from flussd.runtime_sim.cluster import Cluster
from flussd.runtime_sim.nodes import Node
from flussd.runtime_sim.oracles.violation import Oracle, Violation

ALWAYS_WAITING = (ReportsWaiter, RetentionWaiter, CheckpointsWaiter, ScannerWaiter)
"""What a healthy server has parked: the coordinator's poll, the next look at old segments, the next
checkpoints.

Scans whose last answer was lost may be gone on with: they stay for longer than a run.
"""


def sick(cluster: Cluster) -> str:
    """Return why the cluster does not serve again; empty when it does."""
    for node in cluster.nodes:
        if not node.is_up:
            return f"{node.name} is down"
    if cluster.coordinator.machine.role.name != "ACTIVE":
        return f"the coordinator is {cluster.coordinator.machine.role.name}"
    known = cluster.coordinator.machine.state.catalog.buckets
    for key, record in known.items():
        if record.leader_id < 0:
            return f"bucket {key} has no leader"
    for node in cluster.tablets:
        machine = node.machine
        if machine.registration.incarnation < 0:
            return f"{node.name} is not registered"
        for key, replica in machine.buckets.replicas.items():
            if key in known and replica.role is not Role.LEADER:
                return f"{node.name} bucket {key} is {replica.role.name}: {replica.trouble}"
            if key in known and not machine.keyed.is_ready(key):
                return f"{node.name} bucket {key} restores its rows"
    return ""


def leaks(cluster: Cluster) -> None:
    """Raise if anything waits for clients that left, or dropped tables have files."""
    for node in cluster.tablets:
        left = _left_in_tablet(node.machine)
        if left:
            raise Violation(Oracle.NOTHING_LEAKS, f"{node.name}: {left}")
        _files(cluster, node)
    coordinator = cluster.coordinator.machine
    requests = coordinator.requests
    left = {
        name: len(kept)
        for name, kept in (
            ("queue", requests.queue),
            ("waits", requests.waits),
            ("held", requests.held),
            ("connections", coordinator.connections),
            ("questions", coordinator.asked),
        )
        if kept
    }
    if left:
        raise Violation(Oracle.NOTHING_LEAKS, f"coordinator: {left}")
    registry = cluster.registry.machine
    if registry.waiting or registry.service.said:
        raise Violation(Oracle.NOTHING_LEAKS, "registry: requests wait though nobody asks")


def _left_in_tablet(machine: Any) -> dict[str, int]:
    waiters = [w for w in machine.parked.waiters.values() if not isinstance(w, ALWAYS_WAITING)]
    clients = [number for number, internal in machine.connections.items() if not internal]
    everything = {
        "parked": waiters,
        "produce tickets": machine.produces.by_ticket,
        "fetch walks": machine.fetches.walks.by_token,
        "offset walks": machine.offsets.walks.by_token,
        "disk effects": machine.buckets.owners,
        "listings": machine.buckets.listings,
        "drops": machine.buckets.dropping,
        "erasures": machine.buckets.erasing,
        "registry questions": machine.registration.asked,
        "writer id requests": machine.registration.wanting,
        "metadata requests": machine.metadata.waiting,
        "client connections": clients,
        "puts": machine.puts.queue,
        "puts without ids": machine.puts.lacking,
        "merges": machine.puts.merging,
        "puts behind another": machine.puts.behind,
        "restores": machine.keyed.restores.running,
        "restores that wait": machine.keyed.restores.waiting,
        "reads of restores": machine.keyed.restores.by_token,
        "unknown tables": machine.keyed.unknown,
    }
    return {name: len(kept) for name, kept in everything.items() if kept}


def _files(cluster: Cluster, node: Node) -> None:
    """Files belong to buckets that the coordinator knows."""
    known = cluster.coordinator.machine.state.catalog.buckets
    for path in node.disk.media.below(ROOT):
        found = key_of(path)
        if found is None or found[0] not in known:
            raise Violation(Oracle.NOTHING_LEAKS, f"{node.name}: {path} belongs to no bucket")
