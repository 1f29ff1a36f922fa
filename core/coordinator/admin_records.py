"""What the registry keeps beside the catalog: offsets of producers, tags of servers, the last rebalance.

Records, where each is, and its JSON: upstream's layout, but that offsets stand in the node itself instead
of in a remote file, and that each node names the change that wrote it. Encoding is canonical.
"""

from __future__ import annotations

import enum
import json
from typing import Final, TypeAlias

import attrs

from flussd.core.coordinator.layout import ROOT, encode

PRODUCERS: Final = f"{ROOT}/producers"
"""There is one as long as there are producers."""

SERVER_TAGS: Final = f"{ROOT}/tabletservers/server_tags"
REBALANCE: Final = f"{ROOT}/cluster/rebalance"
REBALANCE_PARENT: Final = f"{ROOT}/cluster"
"""Made with REBALANCE by the first rebalance, not before."""

Offsets: TypeAlias = tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]
"""By table id: (partition id or NO_PARTITION, bucket, offset) of each bucket; all in order."""


class ServerTag(enum.IntEnum):
    """What an admin says of a tablet server; the number is what travels."""

    PERMANENT_OFFLINE = 0  # it gets no new replicas
    TEMPORARY_OFFLINE = 1


class RebalanceStatus(enum.IntEnum):
    """How a rebalance stands; the number is what travels."""

    NOT_STARTED = 0
    REBALANCING = 1
    FAILED = 2
    COMPLETED = 3
    CANCELLED = 4
    TIMEOUT = 5


@attrs.frozen
class ProducerRecord:
    """Offsets that a producer registered; they count before *expires_ms* of the wall clock."""

    producer_id: str
    expires_ms: int
    offsets: Offsets
    change_id: str


@attrs.frozen
class TagsRecord:
    """The tags of all servers that have one, by id; *version* is their node's, -1 when there is none."""

    tags: tuple[tuple[int, ServerTag], ...] = ()
    version: int = -1
    change_id: str = ""

    def of(self, server_id: int) -> ServerTag | None:
        """Return a server's tag, None if it has none."""
        return dict(self.tags).get(server_id)


@attrs.frozen
class RebalanceRecord:
    """The current or last rebalance; *version* is its node's."""

    rebalance_id: str
    status: RebalanceStatus
    version: int
    change_id: str


def producer_path(producer_id: str) -> str:
    """Return where the offsets of a producer are."""
    return f"{PRODUCERS}/{producer_id}"


def encode_producer(record: ProducerRecord) -> bytes:
    """Return the node of a producer."""
    tables = [{"table_id": table_id, "offsets": offsets} for table_id, offsets in record.offsets]
    value = {"version": 1, "expiration_time": record.expires_ms, "tables": tables}
    return encode(value | {"change_id": record.change_id})


def decode_producer(producer_id: str, data: bytes) -> ProducerRecord:
    """Read the node of a producer."""
    value = json.loads(data)
    offsets = tuple(
        (table["table_id"], tuple((p, bucket, offset) for p, bucket, offset in table["offsets"]))
        for table in value["tables"]
    )
    return ProducerRecord(producer_id, value["expiration_time"], offsets, value["change_id"])


def encode_tags(record: TagsRecord) -> bytes:
    """Return the node of the server tags."""
    tags = {str(server_id): int(tag) for server_id, tag in record.tags}
    return encode({"version": 1, "server_tags": tags, "change_id": record.change_id})


def decode_tags(data: bytes, version: int) -> TagsRecord:
    """Read the node of the server tags."""
    value = json.loads(data)
    tags = sorted((int(server_id), ServerTag(tag)) for server_id, tag in value["server_tags"].items())
    return TagsRecord(tuple(tags), version, value["change_id"])


def encode_rebalance(record: RebalanceRecord) -> bytes:
    """Return the node of the rebalance; its plan is empty, for nothing can be moved yet."""
    value = {"version": 1, "rebalance_id": record.rebalance_id, "rebalance_plan": []}
    return encode(value | {"rebalance_status": int(record.status), "change_id": record.change_id})


def decode_rebalance(data: bytes, version: int) -> RebalanceRecord:
    """Read the node of the rebalance."""
    value = json.loads(data)
    status = RebalanceStatus(value["rebalance_status"])
    return RebalanceRecord(value["rebalance_id"], status, version, value["change_id"])
