"""Where everything is in the registry, and the JSON of each node: upstream's layout with our fields.

Section 4 of the cluster behaviour has the layout. Ours besides: `format`, tombstones of dropped tables
and partitions under `metadata/dropped`, a `change_id` in what DDL creates and an `altered_by` in what it
alters, and in bucket records the incarnation of the leader, ELR, suspects and M. Encoding is canonical:
equal values, equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from flussd.core.catalog.records import (
    NO_PARTITION,
    BucketKey,
    BucketRecord,
    DatabaseRecord,
    GroupKey,
    PartitionRecord,
    SchemaRecord,
    TablePath,
    TableRecord,
)

ROOT: Final = "/fluss"
FORMAT: Final = f"{ROOT}/format"
FORMAT_LEVEL: Final = 1
"""Of what stands in the registry; a coordinator of another level refuses to start."""

DATABASES: Final = f"{ROOT}/metadata/databases"
DROPPED: Final = f"{ROOT}/metadata/dropped"
TABLE_IDS: Final = f"{ROOT}/metadata/table_seqid"
PARTITION_IDS: Final = f"{ROOT}/metadata/partition_seqid"
EPOCH: Final = f"{ROOT}/coordinators/epoch"
ACTIVE: Final = f"{ROOT}/coordinators/active"
SERVERS: Final = f"{ROOT}/tabletservers/ids"
ASSIGNMENTS: Final = f"{ROOT}/tabletservers/tables"
PARTITION_ASSIGNMENTS: Final = f"{ROOT}/tabletservers/partitions"
CONFIGS: Final = f"{ROOT}/config/server/global"
CONFIGS_PARENTS: Final = (f"{ROOT}/config", f"{ROOT}/config/server")
"""Made with CONFIGS by the first change of a cluster config, not before."""

DEFAULT_DATABASE: Final = "fluss"

BASE_NODES: Final = (
    ROOT,
    f"{ROOT}/metadata",
    DATABASES,
    DROPPED,
    TABLE_IDS,
    PARTITION_IDS,
    f"{ROOT}/metadata/writer_id",
    f"{ROOT}/coordinators",
    f"{ROOT}/coordinators/ids",
    EPOCH,
    f"{ROOT}/tabletservers",
    SERVERS,
    ASSIGNMENTS,
    PARTITION_ASSIGNMENTS,
)
"""Made by one multi, parents first, with FORMAT as the last."""


@attrs.frozen
class Tombstone:
    """A dropped table or partition whose buckets are not all erased; *change_id* marks what dropped it."""

    group: GroupKey
    path: TablePath
    change_id: str


@attrs.frozen
class Registration:
    """What a tablet server says of itself; clients reach it at *host*:*port*, we at *internal*."""

    server_id: int
    host: str
    port: int
    internal: str
    incarnation: int
    version: int


def encode(value: Any) -> bytes:
    """Return canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def encode_count(value: int) -> bytes:
    """Return a counter as upstream writes it: 8 bytes, big-endian."""
    return value.to_bytes(8, "big")


def decode_count(data: bytes) -> int:
    """Read a counter; an empty node is 0."""
    return int.from_bytes(data, "big")


# ---- paths ---------------------------------------------------------------------------------------


def database_path(name: str) -> str:
    """Return where a database is."""
    return f"{DATABASES}/{name}"


def tables_path(database: str) -> str:
    """Return the parent of a database's tables."""
    return f"{DATABASES}/{database}/tables"


def table_path(path: TablePath) -> str:
    """Return where a table is."""
    return f"{DATABASES}/{path[0]}/tables/{path[1]}"


def schemas_path(path: TablePath) -> str:
    """Return the parent of a table's schemas."""
    return f"{table_path(path)}/schemas"


def partitions_path(path: TablePath) -> str:
    """Return the parent of a table's partitions: there is one as long as there are partitions."""
    return f"{table_path(path)}/partitions"


def counters_path(path: TablePath) -> str:
    """Return the parent of the counter of a table with an auto-increment column."""
    return f"{table_path(path)}/auto_inc"


def counter_path(path: TablePath, column_id: int) -> str:
    """Return where a tablet server takes ids of an auto-increment column."""
    return f"{counters_path(path)}/col_{column_id}"


def partition_path(path: TablePath, name: str) -> str:
    """Return where a partition is."""
    return f"{table_path(path)}/partitions/{name}"


def assignment_path(group: GroupKey) -> str:
    """Return where the assignment of a table or a partition is."""
    table_id, partition_id = group
    if partition_id == NO_PARTITION:
        return f"{ASSIGNMENTS}/{table_id}"
    return f"{PARTITION_ASSIGNMENTS}/{partition_id}"


def buckets_path(group: GroupKey) -> str:
    """Return the parent of the buckets of a table or a partition."""
    return f"{assignment_path(group)}/buckets"


def bucket_path(key: BucketKey) -> str:
    """Return the folder of a bucket."""
    return f"{buckets_path(key[:2])}/{key[2]}"


def record_path(key: BucketKey) -> str:
    """Return where the record of a bucket is."""
    return f"{bucket_path(key)}/leader_isr"


def tombstone_path(group: GroupKey) -> str:
    """Return where the tombstone of a dropped table or partition is."""
    table_id, partition_id = group
    return f"{DROPPED}/{table_id}" + ("" if partition_id == NO_PARTITION else f"-p{partition_id}")


def server_path(server_id: int) -> str:
    """Return where a tablet server registers."""
    return f"{SERVERS}/{server_id}"


# ---- databases, tables, partitions ---------------------------------------------------------------


def encode_database(record: DatabaseRecord, change_id: str, altered_by: str = "") -> bytes:
    """Return the node of a database."""
    value = json.loads(record.json)
    value |= {"created_time": record.created_ms, "modified_time": record.modified_ms}
    return encode(value | {"version": 1} | _marks(change_id, altered_by))


def _marks(change_id: str, altered_by: str) -> dict[str, str]:
    return {"change_id": change_id} | ({"altered_by": altered_by} if altered_by else {})


def decode_marks(data: bytes) -> tuple[str, str]:
    """Return which change made a database or a table, and which altered it last."""
    value = json.loads(data)
    return value["change_id"], value.get("altered_by", "")


def decode_database(name: str, data: bytes) -> DatabaseRecord:
    """Read the node of a database."""
    value = json.loads(data)
    descriptor = {"version": 1, "custom_properties": value["custom_properties"]}
    if "comment" in value:
        descriptor["comment"] = value["comment"]
    return DatabaseRecord(name, encode(descriptor), value["created_time"], value["modified_time"])


def encode_table(record: TableRecord, change_id: str, altered_by: str = "") -> bytes:
    """Return the node of a table; its schemas are nodes of their own."""
    value = json.loads(record.json)
    del value["schema"]
    value |= {"created_time": record.created_ms, "modified_time": record.modified_ms}
    return encode(value | {"version": 1, "table_id": record.table_id} | _marks(change_id, altered_by))


def decode_table(path: TablePath, data: bytes, schemas: dict[int, bytes]) -> TableRecord:
    """Read the node of a table with its *schemas* by id."""
    value = json.loads(data)
    newest = max(schemas)
    descriptor = {
        "version": 1,
        "schema": json.loads(schemas[newest]),
        "partition_key": value["partition_key"],
        "bucket_key": value["bucket_key"],
        "bucket_count": value["bucket_count"],
        "properties": value["properties"],
        "custom_properties": value["custom_properties"],
    }
    if "comment" in value:
        descriptor["comment"] = value["comment"]
    return TableRecord.of(
        path,
        value["table_id"],
        encode(descriptor),
        tuple([SchemaRecord(schema_id, schemas[schema_id]) for schema_id in sorted(schemas)]),
        created_ms=value["created_time"],
        modified_ms=value["modified_time"],
    )


def encode_partition(record: PartitionRecord, change_id: str) -> bytes:
    """Return the node of a partition; its name is that of the node."""
    value = {"version": 1, "table_id": record.table_id, "partition_id": record.partition_id}
    return encode(value | {"bucket_count": record.bucket_count, "change_id": change_id})


def decode_partition(name: str, data: bytes) -> tuple[PartitionRecord, str]:
    """Read the node of a partition; return it and the change that made it."""
    value = json.loads(data)
    record = PartitionRecord(value["table_id"], value["partition_id"], name, value["bucket_count"])
    return record, value["change_id"]


def encode_tombstone(tombstone: Tombstone) -> bytes:
    """Return the node of a tombstone."""
    (table_id, partition_id), (database, table) = tombstone.group, tombstone.path
    value = {"version": 1, "table_id": table_id, "database": database, "table": table}
    if partition_id != NO_PARTITION:
        value["partition_id"] = partition_id
    return encode(value | {"change_id": tombstone.change_id})


def decode_tombstone(data: bytes) -> Tombstone:
    """Read the node of a tombstone."""
    value = json.loads(data)
    group = (value["table_id"], value.get("partition_id", NO_PARTITION))
    return Tombstone(group, (value["database"], value["table"]), value["change_id"])


# ---- cluster configs -----------------------------------------------------------------------------


def encode_configs(configs: Mapping[str, str], change_id: str) -> bytes:
    """Return the node of the cluster configs that were set while the cluster runs."""
    return encode({"version": 1, "configs": dict(configs), "change_id": change_id})


def decode_configs(data: bytes) -> tuple[dict[str, str], str]:
    """Read the node of the cluster configs; return them and the change that made it so."""
    value = json.loads(data)
    return value["configs"], value["change_id"]


# ---- buckets -------------------------------------------------------------------------------------


def encode_assignment(group: GroupKey, replicas: tuple[tuple[int, ...], ...]) -> bytes:
    """Return the node of an assignment: the replicas of each bucket."""
    buckets = {str(n): list(servers) for n, servers in enumerate(replicas)}
    table = {} if group[1] == NO_PARTITION else {"table_id": group[0]}
    return encode({"version": 1, "buckets": buckets} | table)


def table_of_assignment(data: bytes) -> int:
    """Return whose partition an assignment is for."""
    return int(json.loads(data)["table_id"])


def decode_assignment(data: bytes) -> tuple[tuple[int, ...], ...]:
    """Read the node of an assignment."""
    buckets = json.loads(data)["buckets"]
    return tuple([tuple(buckets[str(n)]) for n in range(len(buckets))])


def encode_record(record: BucketRecord) -> bytes:
    """Return the node of a bucket record; by hand, since hundreds are written by one multi."""
    return (
        f'{{"bucket_epoch":{record.bucket_epoch},"coordinator_epoch":{record.coordinator_epoch},'
        f'"elr":{_numbers(record.elr)},"isr":{_numbers(record.isr)},"leader":{record.leader_id},'
        f'"leader_epoch":{record.leader_epoch},"leader_incarnation":{record.leader_incarnation},'
        f'"min_isr":{record.min_isr},"replicas":{_numbers(record.replicas)},"standby_replicas":[],'
        f'"suspects":{_numbers(record.suspects)},"version":2}}'
    ).encode()


def _numbers(numbers: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def decode_record(key: BucketKey, data: bytes) -> BucketRecord:
    """Read the node of a bucket record."""
    value = json.loads(data)
    return BucketRecord(
        key,
        tuple(value["replicas"]),
        value["leader"],
        value["leader_incarnation"],
        value["leader_epoch"],
        tuple(value["isr"]),
        value["bucket_epoch"],
        value["coordinator_epoch"],
        value["min_isr"],
        tuple(value["elr"]),
        tuple(value["suspects"]),
    )


# ---- servers -------------------------------------------------------------------------------------


def decode_registration(server_id: int, data: bytes, incarnation: int, version: int) -> Registration:
    """Read the node of a tablet server."""
    value = json.loads(data)
    address = value["listeners"].split(",")[0].rpartition("/")[2]
    host, _, port = address.rpartition(":")
    return Registration(server_id, host, int(port), value["internal"], incarnation, version)


def encode_active(server_id: int, directory_id: str, *, epoch: int) -> bytes:
    """Return the node of the active coordinator."""
    return encode({"version": 2, "id": str(server_id), "directory_id": directory_id, "epoch": epoch})


def directory_of_active(data: bytes) -> str:
    """Return the data directory of the active coordinator."""
    return str(json.loads(data)["directory_id"])
