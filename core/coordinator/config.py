"""What a coordinator is told once, at its start."""

from __future__ import annotations

import attrs

from flussd.core.coordinator.zones import Zones, fixed_zones
from flussd.core.records.descriptor import ClusterDefaults


@attrs.frozen
class CoordinatorConfig:
    """*host* and *port* are what clients are told; *tablets_expected* must be up before `ready`."""

    host: str = "localhost"
    port: int = 9123
    server_id: int = 0
    tablets_expected: int = 1
    ping_interval_ms: int = 200
    ping_slack_ms: int = 100  # an answer may be later by this much
    slice_buckets: int = 32  # applied, or seen to after a drop, in one step: half a millisecond
    defaults: ClusterDefaults = attrs.Factory(ClusterDefaults)
    zones: Zones = fixed_zones
    settings: tuple[tuple[str, str], ...] = ()  # of the servers' start, beside the defaults'
    auto_partition_check_ms: int = 600_000  # as upstream's auto-partition.check.interval
