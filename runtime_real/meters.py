"""What is measured in a running cluster when somebody asked for it, and slow wake-ups in any case.

The caller owes it its calls before the cluster runs.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any, Final

import attrs

from flussd.core.edge.meter import ApiCounts, Meter
from flussd.core.wire.apis import ApiKey
from flussd.runtime_real.cluster import LocalCluster
from flussd.runtime_real.logs import tell
from flussd.runtime_real.node import Node

KINDS_MAX: Final = 5
"""Kinds of events that a slow wake-up names for each node."""

LOOK_MS: Final = 100
"""Distance of looks at whether the cluster serves already."""


@attrs.define(eq=False)
class SlowWakeUps:
    """Counts and tells wake-ups of the hub in which everybody waited."""

    cluster: LocalCluster
    count: int = 0
    sum_ns: int = 0

    def add(self, took_ns: int) -> None:
        """Count one, and tell what was done in it."""
        self.count += 1
        self.sum_ns += took_ns
        done = {node.name: text for node in self.cluster.nodes if (text := self._done_by(node))}
        text = "; ".join(f"{name}: {text}" for name, text in done.items()) or "nothing of a machine"
        tell(logging.INFO, "slow step", text, took_ms=round(took_ns / 1e6, 3))

    def _done_by(self, node: Node) -> str:
        now_ms = self.cluster.hub.time.now_ms
        kinds: Counter[str] = Counter()
        for at_ms, event in reversed(node.driver.ring.events):
            if at_ms != now_ms:
                break
            kinds[_kind(event)] += 1
        return ", ".join(f"{kind} x{count}" for kind, count in kinds.most_common(KINDS_MAX))


def watch_wake_ups(cluster: LocalCluster) -> SlowWakeUps:
    """Tell of slow wake-ups, once the cluster serves: before that, nobody waits."""
    slow, hub = SlowWakeUps(cluster), cluster.hub

    def look() -> None:
        if cluster.is_ready:
            hub.slow = slow.add
        else:
            hub.call_at(hub.time.now_ms + LOOK_MS, look)

    hub.call_at(hub.time.now_ms + LOOK_MS, look)
    return slow


def attach(cluster: LocalCluster) -> None:
    """Give each node's driver a meter."""
    for node in cluster.nodes:
        edge = node.driver.edge
        keys = [] if edge is None else [*sorted(edge.served), *sorted(edge.private_served)]
        node.driver.meter = Meter(time.perf_counter_ns, {int(key): ApiCounts() for key in keys})


def api_name(key: int) -> str:
    """Return upstream's name of an API, or the number of one of ours."""
    return ApiKey(key).name if key in ApiKey._value2member_map_ else f"PRIVATE_{key}"


def _kind(event: Any) -> str:
    name = event[0] if isinstance(event, tuple) else type(event).__name__
    key = getattr(event, "api_key", None)
    return f"{name} {api_name(key)}" if key is not None else str(name)
