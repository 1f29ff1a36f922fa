"""What a tablet server is told once, at its start."""

from __future__ import annotations

import attrs

from flussd.core.limits import SEGMENT_BYTES
from flussd.core.replica.stored import Durability


@attrs.frozen
class TabletConfig:
    """One tablet server: *address* is what clients are told, *internal_address* what peers use."""

    server_id: int
    host: str
    port: int
    internal_address: str
    durability: Durability = Durability.PAGE_CACHE
    segment_bytes: int = SEGMENT_BYTES
    writer_id_block: int = 1000  # ids taken from the registry at a time; the rest is lost at a restart
    checkpoint_bytes: int = 16 << 20  # appended between two checkpoints: what recovery scans at most
    retention_interval_ms: int = 5 * 60_000  # between two looks for segments that are too old
