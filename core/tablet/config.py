"""What a tablet server is told once, at its start."""

from __future__ import annotations

import enum

import attrs

from flussd.core.limits import SEGMENT_BYTES


class Durability(enum.Enum):
    """When a batch counts as written; see architecture section 6."""

    PAGE_CACHE = "page_cache"  # survives a killed process
    GROUP_FSYNC = "group_fsync"  # survives a power cut too: one sync for many batches, acks after it


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
    checkpoint_interval_ms: int = 5_000  # between two checkpoints of what recovery need not scan again
