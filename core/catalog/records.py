"""The entries of the catalog: what is known of a node, a database, a table and a bucket.

Values only. They are replaced as a whole, never changed; the coordinator's hold what the registry
confirmed, a tablet server's what the coordinator told it.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import attrs

BucketKey: TypeAlias = tuple[int, int, int]  # table id, partition id or -1, bucket
GroupKey: TypeAlias = tuple[int, int]  # table id, partition id or -1: whose buckets are meant
TablePath: TypeAlias = tuple[str, str]  # database, table

NO_PARTITION: Final = -1
NO_LEADER: Final = -1


@attrs.frozen
class NodeRecord:
    """A live server, as clients reach it; *incarnation* is the creation id of its registration node."""

    server_id: int
    host: str
    port: int
    incarnation: int = -1


@attrs.frozen
class ConfigsRecord:
    """Cluster configs, by key: *initial* ones of the coordinator's start, *dynamic* ones that were set."""

    initial: tuple[tuple[str, str], ...] = ()
    dynamic: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class DatabaseRecord:
    """A database; *json* is its descriptor as clients get it."""

    name: str
    json: bytes
    created_ms: int
    modified_ms: int


@attrs.frozen
class SchemaRecord:
    """One version of a table's schema: *json* as clients get it."""

    schema_id: int
    json: bytes


@attrs.frozen
class TableRecord:
    """A table; *json* is its descriptor as clients get it, with all defaults. Build it with `of`.

    *schemas* has every version of its schema, parsed, by id; *schema_id* is the newest.
    """

    database: str
    name: str
    table_id: int
    json: bytes
    schema_id: int
    schema_records: tuple[SchemaRecord, ...]
    created_ms: int
    modified_ms: int
    bucket_count: int = 0
    partition_key: tuple[str, ...] = ()
    log_format: str = "ARROW"
    schemas: dict[int, Any] = attrs.field(factory=dict, repr=False)
    properties: dict[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def path(self) -> TablePath:
        """Database and name."""
        return (self.database, self.name)

    @property
    def is_partitioned(self) -> bool:
        """Whether its buckets belong to partitions, and none to itself."""
        return bool(self.partition_key)

    @property
    def has_primary_key(self) -> bool:
        """Whether it is a primary-key table."""
        return bool(self.schemas[self.schema_id].get("primary_key"))

    @property
    def auto_increment_id(self) -> int | None:
        """The id of its auto-increment column; None when it has none."""
        schema = self.schemas[self.schema_id]
        names = schema.get("auto_increment_column") or ()
        return next((column["id"] for column in schema["columns"] if column["name"] in names), None)

    @classmethod
    def of(
        cls,
        path: TablePath,
        table_id: int,
        descriptor: bytes,
        schemas: tuple[SchemaRecord, ...],
        *,
        created_ms: int,
        modified_ms: int,
    ) -> TableRecord:
        """Build a record from a *descriptor* and *schemas* that were validated when they were created."""
        assert schemas, f"table {table_id} has no schema"
        parsed = json.loads(descriptor)
        properties = parsed["properties"]
        return cls(
            path[0],
            path[1],
            table_id,
            descriptor,
            max(schema.schema_id for schema in schemas),
            schemas,
            created_ms,
            modified_ms,
            parsed["bucket_count"],
            tuple(parsed["partition_key"]),
            properties.get("table.log.format", "ARROW").upper(),
            {schema.schema_id: json.loads(schema.json) for schema in schemas},
            properties,
        )


@attrs.frozen
class PartitionRecord:
    """A partition of a table; *name* has the values of its spec, joined."""

    table_id: int
    partition_id: int
    name: str
    bucket_count: int

    @property
    def group(self) -> GroupKey:
        """What its buckets have in common."""
        return (self.table_id, self.partition_id)


@attrs.frozen
class BucketRecord:
    """The registry's record of one bucket (replication.md, section 1).

    *leader_id* is NO_LEADER when there is none. The two epochs grow: that of the leader with each change
    of leadership, that of the bucket with each write.
    """

    key: BucketKey
    replicas: tuple[int, ...]
    leader_id: int
    leader_incarnation: int
    leader_epoch: int
    isr: tuple[int, ...]
    bucket_epoch: int
    coordinator_epoch: int
    min_isr: int = 1
    elr: tuple[int, ...] = ()
    suspects: tuple[int, ...] = ()
    number: int = attrs.field(init=False, eq=False, repr=False)
    """For digests, made once: catalogs and the coordinator count each record in and out, several times."""

    @number.default
    def _number_of(self) -> int:
        leader = (self.leader_id, self.leader_incarnation, self.leader_epoch)
        epochs = (self.bucket_epoch, self.coordinator_epoch, self.min_isr)
        facts = (self.key, self.replicas, leader, self.isr, epochs, self.elr, self.suspects)
        return int.from_bytes(blake2b(repr(facts).encode(), digest_size=16).digest())
