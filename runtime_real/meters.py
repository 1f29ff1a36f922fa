"""Meters on the drivers of a cluster: attached when somebody asked for metrics, or for slow steps.

The caller owes it `attach` before the cluster runs.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from flussd.core.connections import ProduceReceived, RequestReceived
from flussd.core.meter import ApiCounts, Meter
from flussd.core.wire.apis import ApiKey
from flussd.runtime_real.cluster import LocalCluster
from flussd.runtime_real.logs import tell
from flussd.runtime_real.node import Node


def attach(cluster: LocalCluster) -> None:
    """Give each node's driver a meter."""
    for node in cluster.nodes:
        node.driver.meter = _meter(node)


def _meter(node: Node) -> Meter:
    edge = node.driver.edge
    keys = [] if edge is None else [*sorted(edge.served), *sorted(edge.private_served)]

    def slow(event: Any, took_ns: int) -> None:
        facts: dict[str, Any] = {"step": type(event).__name__, "took_ms": round(took_ns / 1e6, 3)}
        if isinstance(event, RequestReceived):
            facts |= {"api": api_name(event.api_key), "connection": event.connection}
        elif isinstance(event, ProduceReceived):
            facts |= {"table_id": event.table_id, "connection": event.connection}
        tell(logging.INFO, "slow step", node=node.name, **facts)

    return Meter(time.perf_counter_ns, slow, {int(key): ApiCounts() for key in keys})


def api_name(key: int) -> str:
    """Return upstream's name of an API, or the number of one of ours."""
    return ApiKey(key).name if key in ApiKey._value2member_map_ else f"PRIVATE_{key}"
