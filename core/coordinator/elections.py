"""Who leads a bucket, and where a new table's buckets go: pure functions of what is known.

At replication factor 1 the only replica leads whenever it is registered. A leader that registers anew
gets a new epoch before anything else, since leadership is granted to an incarnation (rule 3).
"""

from __future__ import annotations

from flussd.core.catalog.records import NO_LEADER, BucketKey, BucketRecord
from flussd.core.coordinator.layout import Registration


def leader_of(
    replicas: tuple[int, ...], isr: tuple[int, ...], servers: dict[int, Registration]
) -> tuple[int, int]:
    """Return (server, incarnation) of who should lead; (NO_LEADER, -1) when nobody can."""
    for server_id in replicas:
        if server_id in isr and server_id in servers:
            return server_id, servers[server_id].incarnation
    return NO_LEADER, -1


def is_right(record: BucketRecord, servers: dict[int, Registration]) -> bool:
    """Tell whether the record names who should lead."""
    wanted = leader_of(record.replicas, record.isr, servers)
    return (record.leader_id, record.leader_incarnation) == wanted


def successor(
    record: BucketRecord, servers: dict[int, Registration], coordinator_epoch: int
) -> BucketRecord:
    """Return the record that names who should lead, in a new epoch."""
    leader_id, incarnation = leader_of(record.replicas, record.isr, servers)
    return BucketRecord(
        record.key,
        record.replicas,
        leader_id,
        incarnation,
        record.leader_epoch + 1,
        record.isr,
        record.bucket_epoch + 1,
        coordinator_epoch,
        record.min_isr,
        record.elr,
        record.suspects,
    )


def first_record(
    key: BucketKey, replicas: tuple[int, ...], servers: dict[int, Registration], coordinator_epoch: int
) -> BucketRecord:
    """Return the first record of a bucket: all replicas are in sync, since all are empty."""
    leader_id, incarnation = leader_of(replicas, replicas, servers)
    return BucketRecord(key, replicas, leader_id, incarnation, 0, replicas, 0, coordinator_epoch)


def assign(first: int, bucket_count: int, ordered: list[int]) -> tuple[tuple[int, ...], ...]:
    """Spread one replica of each bucket round robin, from *first* on: an id, so that tables differ."""
    return tuple([(ordered[(first + bucket) % len(ordered)],) for bucket in range(bucket_count)])
