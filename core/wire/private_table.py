"""The messages between our own servers, in the form of table.py; private.pyi has their types."""

from __future__ import annotations

from typing import Final

# fmt: off
MESSAGES: Final[dict[str, tuple[tuple[int, str, str, str, bool], ...]]] = {
    # The coordinator tells a tablet server of the cluster: a snapshot first, then what changed.
    "UpdateCatalogRequest": (
        (1, "coordinator_epoch", "req", "int64", False),
        (2, "tablet_incarnation", "req", "int64", False),  # whom it is meant for
        (3, "sequence", "req", "int64", False),            # grows within a coordinator epoch
        (4, "snapshot_begin", "opt", "bool", False),       # forget what a snapshot brought so far
        (5, "snapshot_end", "opt", "bool", False),         # the snapshot replaces the catalog
        (6, "coordinator", "opt", "NodeEntry", False),
        (7, "nodes_changed", "opt", "bool", False),        # nodes is the full list of live tablets
        (8, "nodes", "rep", "NodeEntry", False),
        (9, "databases", "rep", "DatabaseEntry", False),
        (10, "tables", "rep", "TableEntry", False),
        (11, "buckets", "rep", "BucketEntry", False),
        (12, "partitions", "rep", "PartitionEntry", False),
        (13, "configs_changed", "opt", "bool", False),     # configs is the full list of cluster configs
        (14, "configs", "rep", "ConfigEntry", False),
    ),
    "UpdateCatalogResponse": (
        (1, "sequence", "req", "int64", False),
    ),
    "NodeEntry": (
        (1, "server_id", "req", "int32", False),
        (2, "host", "req", "string", False),
        (3, "port", "req", "int32", False),
        (4, "incarnation", "opt", "int64", False),
    ),
    "ConfigEntry": (
        (1, "key", "req", "string", False),
        (2, "value", "req", "string", False),
        (3, "dynamic", "req", "bool", False),              # set while the cluster runs; else at its start
    ),
    "DatabaseEntry": (
        (1, "name", "req", "string", False),
        (2, "dropped", "opt", "bool", False),              # the rest is absent then
        (3, "json", "opt", "bytes", False),
        (4, "created_ms", "opt", "int64", False),
        (5, "modified_ms", "opt", "int64", False),
    ),
    "TableEntry": (
        (1, "database", "req", "string", False),
        (2, "name", "req", "string", False),
        (3, "table_id", "req", "int64", False),            # of the dropped one, too
        (4, "dropped", "opt", "bool", False),              # with all its buckets; the rest is absent
        (5, "json", "opt", "bytes", False),
        (6, "schema_id", "opt", "int32", False),           # the newest
        (7, "schemas", "rep", "SchemaEntry", False),
        (8, "created_ms", "opt", "int64", False),
        (9, "modified_ms", "opt", "int64", False),
    ),
    "SchemaEntry": (
        (1, "schema_id", "req", "int32", False),
        (2, "json", "req", "bytes", False),
    ),
    "PartitionEntry": (
        (1, "table_id", "req", "int64", False),
        (2, "partition_id", "req", "int64", False),
        (3, "dropped", "opt", "bool", False),              # with all its buckets; the rest is absent
        (4, "name", "opt", "string", False),
        (5, "bucket_count", "opt", "int32", False),
    ),
    "BucketEntry": (
        (1, "table_id", "req", "int64", False),
        (2, "partition_id", "opt", "int64", False),
        (3, "bucket", "req", "int32", False),
        (4, "dropped", "opt", "bool", False),              # erase your replica; only to who has one
        (5, "leader_id", "opt", "int32", False),           # -1: none
        (6, "leader_incarnation", "opt", "int64", False),
        (7, "leader_epoch", "opt", "int32", False),
        (8, "isr", "rep", "int32", True),
        (9, "elr", "rep", "int32", True),
        (10, "suspects", "rep", "int32", True),
        (11, "replicas", "rep", "int32", True),
        (12, "min_isr", "opt", "int32", False),
        (13, "bucket_epoch", "opt", "int32", False),
        (14, "coordinator_epoch", "opt", "int64", False),
    ),
    # The coordinator asks a tablet server for its news: a long poll that is its ping, too.
    "AwaitReportsRequest": (
        (1, "coordinator_epoch", "req", "int64", False),
        (2, "tablet_incarnation", "req", "int64", False),
        (3, "after_sequence", "req", "int64", False),      # reports up to here are confirmed
        (4, "wait_ms", "req", "int32", False),
        (5, "wall_ms", "req", "int64", False),
    ),
    "AwaitReportsResponse": (
        (1, "wall_ms", "req", "int64", False),
        (2, "reports", "rep", "BucketReport", False),
    ),
    "BucketReport": (
        (1, "sequence", "req", "int64", False),
        (2, "kind", "req", "int32", False),                # LEADING, DELETED, FAILED
        (3, "table_id", "req", "int64", False),
        (4, "partition_id", "opt", "int64", False),
        (5, "bucket", "req", "int32", False),
        (6, "leader_epoch", "opt", "int32", False),
        (7, "text", "opt", "string", False),
    ),
}
