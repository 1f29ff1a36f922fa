"""What a tablet server is told once, at its start."""

from __future__ import annotations

import attrs

from flussd.core.limits import CHECKPOINT_PAUSE_MS, MERGE_SLICE_RECORDS
from flussd.core.replica.stored import ReplicaConfig
from flussd.core.tablet.restore import USUAL_PACE, Pace


@attrs.frozen(kw_only=True)
class TabletConfig(ReplicaConfig):
    """One tablet server: *address* is what clients are told, *internal_address* what peers use.

    Its replicas are told of it what a ReplicaConfig has.
    """

    server_id: int
    host: str
    port: int
    internal_address: str
    writer_id_block: int = 1000  # ids taken from the registry at a time; the rest is lost at a restart
    checkpoint_pause_ms: int = CHECKPOINT_PAUSE_MS  # between two rounds of checkpoints
    restore_pace: Pace = USUAL_PACE
    merge_slice_records: int = MERGE_SLICE_RECORDS
    retention_interval_ms: int = 5 * 60_000  # between two looks for segments that are too old
