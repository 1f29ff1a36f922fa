"""Records to entries of UPDATE_CATALOG, and back: one pair of functions for each kind."""

from __future__ import annotations

from collections.abc import Iterable

from flussd.core.catalog.records import (
    NO_PARTITION,
    BucketKey,
    BucketRecord,
    ConfigsRecord,
    DatabaseRecord,
    NodeRecord,
    PartitionRecord,
    SchemaRecord,
    TableRecord,
)
from flussd.core.wire import private


def node(entry: private.NodeEntry) -> NodeRecord:
    """Read a node."""
    incarnation = entry.incarnation if entry.HasField("incarnation") else -1
    return NodeRecord(entry.server_id, entry.host, entry.port, incarnation)


def node_entry(record: NodeRecord) -> private.NodeEntry:
    """Write a node."""
    return private.NodeEntry(
        server_id=record.server_id, host=record.host, port=record.port, incarnation=record.incarnation
    )


def configs(told: Iterable[private.ConfigEntry]) -> ConfigsRecord:
    """Read the cluster configs."""
    pairs = [(entry.dynamic, (entry.key, entry.value)) for entry in told]
    return ConfigsRecord(
        tuple([pair for dynamic, pair in pairs if not dynamic]),
        tuple([pair for dynamic, pair in pairs if dynamic]),
    )


def configs_entries(record: ConfigsRecord) -> list[private.ConfigEntry]:
    """Write the cluster configs."""
    initial = [private.ConfigEntry(key=key, value=value, dynamic=False) for key, value in record.initial]
    return initial + [
        private.ConfigEntry(key=key, value=value, dynamic=True) for key, value in record.dynamic
    ]


def database(entry: private.DatabaseEntry) -> DatabaseRecord:
    """Read a database that was not dropped."""
    return DatabaseRecord(entry.name, entry.json, entry.created_ms, entry.modified_ms)


def database_entry(record: DatabaseRecord) -> private.DatabaseEntry:
    """Write a database."""
    return private.DatabaseEntry(
        name=record.name, json=record.json, created_ms=record.created_ms, modified_ms=record.modified_ms
    )


def table(entry: private.TableEntry) -> TableRecord:
    """Read a table that was not dropped."""
    return TableRecord.of(
        (entry.database, entry.name),
        entry.table_id,
        entry.json,
        tuple([SchemaRecord(schema.schema_id, schema.json) for schema in entry.schemas]),
        created_ms=entry.created_ms,
        modified_ms=entry.modified_ms,
    )


def table_entry(record: TableRecord) -> private.TableEntry:
    """Write a table."""
    entry = private.TableEntry(
        database=record.database,
        name=record.name,
        table_id=record.table_id,
        json=record.json,
        schema_id=record.schema_id,
        created_ms=record.created_ms,
        modified_ms=record.modified_ms,
    )
    for schema in record.schema_records:
        entry.schemas.add(schema_id=schema.schema_id, json=schema.json)
    return entry


def partition(entry: private.PartitionEntry) -> PartitionRecord:
    """Read a partition that was not dropped."""
    return PartitionRecord(entry.table_id, entry.partition_id, entry.name, entry.bucket_count)


def partition_entry(record: PartitionRecord) -> private.PartitionEntry:
    """Write a partition."""
    return private.PartitionEntry(
        table_id=record.table_id,
        partition_id=record.partition_id,
        name=record.name,
        bucket_count=record.bucket_count,
    )


def key_of(entry: private.BucketEntry | private.BucketReport) -> BucketKey:
    """Return the bucket that an entry or a report is about."""
    partition_id = entry.partition_id if entry.HasField("partition_id") else NO_PARTITION
    return (entry.table_id, partition_id, entry.bucket)


def bucket(entry: private.BucketEntry) -> BucketRecord:
    """Read the record of a bucket that was not dropped."""
    return BucketRecord(
        key_of(entry),
        tuple(entry.replicas),
        entry.leader_id,
        entry.leader_incarnation,
        entry.leader_epoch,
        tuple(entry.isr),
        entry.bucket_epoch,
        entry.coordinator_epoch,
        entry.min_isr,
        tuple(entry.elr),
        tuple(entry.suspects),
    )


def bucket_entry(record: BucketRecord) -> private.BucketEntry:
    """Write the record of a bucket."""
    entry = private.BucketEntry(
        table_id=record.key[0],
        bucket=record.key[2],
        replicas=record.replicas,
        leader_id=record.leader_id,
        leader_incarnation=record.leader_incarnation,
        leader_epoch=record.leader_epoch,
        isr=record.isr,
        bucket_epoch=record.bucket_epoch,
        coordinator_epoch=record.coordinator_epoch,
        min_isr=record.min_isr,
        elr=record.elr,
        suspects=record.suspects,
    )
    if record.key[1] != NO_PARTITION:
        entry.partition_id = record.key[1]
    return entry


def dropped_bucket(record: BucketRecord) -> private.BucketEntry:
    """Write that a bucket was dropped: whoever has a replica erases it."""
    entry = private.BucketEntry(
        table_id=record.key[0], bucket=record.key[2], dropped=True, leader_epoch=record.leader_epoch
    )
    if record.key[1] != NO_PARTITION:
        entry.partition_id = record.key[1]
    return entry
