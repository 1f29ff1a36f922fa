"""Answers to read-only requests, from a catalog: the same on the coordinator and on tablet servers.

Pure functions of (catalog, request). What a client asked wrongly is raised as Refused, with the code that
section 6 of the wire protocol gives. The caller holds an answer that lacks a leader for a while.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.catalog import absent
from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.entries import key_of
from flussd.core.catalog.lookups import database_of, partitioned_table_of, table_of
from flussd.core.catalog.records import (
    NO_LEADER,
    NO_PARTITION,
    GroupKey,
    NodeRecord,
    PartitionRecord,
    TableRecord,
)
from flussd.core.limits import INTRODUCTION_BYTES_MAX
from flussd.core.records.partitions import matches, parse_partial_spec, spec_named
from flussd.core.records.refusal import Refused
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

__all__ = ["ANSWERED", "Answer", "answer", "key_of"]

DYNAMIC: Final = "DYNAMIC_SERVER_CONFIG"
INITIAL: Final = "INITIAL_SERVER_CONFIG"
"""Where a cluster config comes from, in upstream's words."""

SECRET_WORDS: Final = ("password", "secret", "credential", "token", "account.key", "access-key")
"""A cluster config with one of these in its key is described without its value."""
HIDDEN: Final = "******"


FORGETFUL_CLIENT: Final = "fluss-rust"
"""What pyfluss calls itself; see `_introduce_tables`."""

BUCKET_ENTRY_BYTES: Final = 100
"""What a bucket counts among the tables that are introduced: it takes a fourth of that, and time."""


class Health(enum.IntEnum):
    """How a cluster is; the number is what travels."""

    GREEN = 0
    YELLOW = 1  # some replica is not in sync
    RED = 2  # some bucket has no live leader


@attrs.frozen
class Answer:
    """The response; *leaderless*: a table that was asked for has a bucket without a leader."""

    message: Any
    leaderless: bool = False


def answer(catalog: Catalog, api_key: int, message: Any, client: str = "") -> Answer:
    """Answer a request of one of the ANSWERED APIs, of a client that calls itself *client*.

    Raises:
        Refused: the request names what does not exist, or asks for what cannot be.
    """
    if api_key in absent.HANDLERS:
        return Answer(absent.HANDLERS[api_key](catalog, message))
    found = _HANDLERS[api_key](catalog, message)
    if api_key == ApiKey.GET_METADATA and client == FORGETFUL_CLIENT and not message.ByteSize():
        _introduce_tables(catalog, found.message)
    return found


# ---- databases -----------------------------------------------------------------------------------


def _list_databases(catalog: Catalog, asked: messages.ListDatabasesRequest) -> Answer:
    response = messages.ListDatabasesResponse()
    for name in sorted(catalog.databases):
        if asked.include_summary:
            response.database_summary.add(
                database_name=name,
                created_time=catalog.databases[name].created_ms,
                table_count=catalog.table_count(name),
            )
        else:
            response.database_name.append(name)
    return Answer(response)


def _database_exists(catalog: Catalog, asked: messages.DatabaseExistsRequest) -> Answer:
    return Answer(messages.DatabaseExistsResponse(exists=asked.database_name in catalog.databases))


def _get_database_info(catalog: Catalog, asked: messages.GetDatabaseInfoRequest) -> Answer:
    record = database_of(catalog, asked.database_name)
    return Answer(
        messages.GetDatabaseInfoResponse(
            database_json=record.json, created_time=record.created_ms, modified_time=record.modified_ms
        )
    )


# ---- tables --------------------------------------------------------------------------------------


def _list_tables(catalog: Catalog, asked: messages.ListTablesRequest) -> Answer:
    record = database_of(catalog, asked.database_name)
    return Answer(messages.ListTablesResponse(table_name=catalog.table_names(record.name)))


def _table_exists(catalog: Catalog, asked: messages.TableExistsRequest) -> Answer:
    path = (asked.table_path.database_name, asked.table_path.table_name)
    return Answer(messages.TableExistsResponse(exists=path in catalog.tables))


def _get_table_info(catalog: Catalog, asked: messages.GetTableInfoRequest) -> Answer:
    record = table_of(catalog, asked.table_path)
    return Answer(
        messages.GetTableInfoResponse(
            table_id=record.table_id,
            schema_id=record.schema_id,
            table_json=record.json,
            created_time=record.created_ms,
            modified_time=record.modified_ms,
        )
    )


def _get_table_schema(catalog: Catalog, asked: messages.GetTableSchemaRequest) -> Answer:
    path = asked.table_path
    record = catalog.tables.get((path.database_name, path.table_name))
    if record is None:  # upstream looks for the schema alone, and does not find it
        text = f"table {path.database_name}.{path.table_name} does not exist"
        raise Refused(ErrorCode.SCHEMA_NOT_EXIST, text)
    wanted = asked.schema_id if asked.HasField("schema_id") else record.schema_id
    for schema in record.schema_records:
        if schema.schema_id == wanted:
            return Answer(
                messages.GetTableSchemaResponse(schema_id=schema.schema_id, schema_json=schema.json)
            )
    text = f"table {path.database_name}.{path.table_name} has no schema {wanted}"
    raise Refused(ErrorCode.SCHEMA_NOT_EXIST, text)


# ---- partitions ----------------------------------------------------------------------------------


def _list_partition_infos(catalog: Catalog, asked: messages.ListPartitionInfosRequest) -> Answer:
    table = partitioned_table_of(catalog, asked.table_path)
    pairs = [(pair.key, pair.value) for pair in asked.partial_partition_spec.partition_key_values]
    wanted = parse_partial_spec(pairs, table.partition_key)
    response = messages.ListPartitionInfosResponse()
    if asked.include_system_partitions:
        response.system_partitions_included = True
    for partition in catalog.partitions_of(table.table_id):
        spec = spec_named(partition.name, table.partition_key)
        if matches(spec, wanted) and (asked.include_system_partitions or not spec.is_historical):
            info = response.partitions_info.add(partition_id=partition.partition_id)
            for key, value in zip(spec.keys, spec.values, strict=True):
                info.partition_spec.partition_key_values.add(key=key, value=value)
    return Answer(response)


# ---- metadata ------------------------------------------------------------------------------------


def _get_metadata(catalog: Catalog, asked: messages.MetadataRequest) -> Answer:
    response = messages.MetadataResponse()
    if catalog.coordinator is not None:
        _put_node(response.coordinator_server, catalog.coordinator)
    for node in catalog.nodes.values():
        _put_node(response.tablet_servers.add(), node)
    leaderless = False
    listed = set()
    for path in asked.table_path:
        table = table_of(catalog, path)
        listed.add(table.table_id)
        leaderless |= _put_table(catalog, response, table)
    for partition_path in asked.partitions_path:
        table = table_of(catalog, partition_path)
        if not partition_path.HasField("partition_name"):
            # pyfluss 1.0.0 asks so for a table without partitions behind a failed write.
            if table.table_id not in listed:
                listed.add(table.table_id)
                leaderless |= _put_table(catalog, response, table)
            continue
        names = catalog.partition_names.get(table.table_id, {})
        if partition_path.partition_name not in names:
            text = f"table {table.database}.{table.name} has no partition {partition_path.partition_name}"
            raise Refused(ErrorCode.PARTITION_NOT_EXISTS, text)
        partition = catalog.partitions[names[partition_path.partition_name]]
        leaderless |= _put_partition(catalog, response, partition)
    for partition_id in asked.partitions_id:
        if partition_id not in catalog.partitions:
            raise Refused(ErrorCode.PARTITION_NOT_EXISTS, f"there is no partition with id {partition_id}")
        leaderless |= _put_partition(catalog, response, catalog.partitions[partition_id])
    return Answer(response, leaderless)


def _introduce_tables(catalog: Catalog, response: messages.MetadataResponse) -> None:
    """Add tables to the answer for nodes alone, partitioned ones first, as far as there is room.

    pyfluss 1.0.0 asks for the nodes when all servers were gone (and in `get_server_nodes`), and replaces
    all that it knew by the answer. It panics at partitions of a table that it does not know then, with
    which its writers end for good; and writers of other tables raise that there is no such table.
    """
    left_bytes = INTRODUCTION_BYTES_MAX
    for partitioned in (True, False):
        for table in catalog.tables.values():
            if table.is_partitioned is not partitioned:
                continue
            size_bytes = len(table.json) + BUCKET_ENTRY_BYTES * (1 if partitioned else table.bucket_count)
            if size_bytes <= left_bytes:
                left_bytes -= size_bytes
                _put_table(catalog, response, table)
            if left_bytes < INTRODUCTION_BYTES_MAX // 64:  # full, as good as
                return


def _put_node(into: messages.PbServerNode, node: NodeRecord) -> None:
    into.node_id, into.host, into.port = node.server_id, node.host, node.port


def _put_table(catalog: Catalog, response: messages.MetadataResponse, table: TableRecord) -> bool:
    """Add a table with its buckets; return whether one of them has no leader."""
    # pyfluss takes the table's description from table_json here; it must be complete.
    into = response.table_metadata.add(
        table_id=table.table_id,
        schema_id=table.schema_id,
        table_json=table.json,
        created_time=table.created_ms,
        modified_time=table.modified_ms,
    )
    into.table_path.database_name, into.table_path.table_name = table.path
    count = 0 if table.is_partitioned else table.bucket_count
    return _put_buckets(catalog, into.bucket_metadata, (table.table_id, NO_PARTITION), count)


def _put_partition(
    catalog: Catalog, response: messages.MetadataResponse, partition: PartitionRecord
) -> bool:
    into = response.partition_metadata.add(
        table_id=partition.table_id,
        partition_name=partition.name,
        partition_id=partition.partition_id,
    )
    return _put_buckets(catalog, into.bucket_metadata, partition.group, partition.bucket_count)


def _put_buckets(catalog: Catalog, into: Any, group: GroupKey, count: int) -> bool:
    leaderless = False
    for bucket in range(count):
        entry = into.add(bucket_id=bucket)
        record = catalog.buckets.get((*group, bucket))
        if record is not None:
            entry.replica_id.extend(record.replicas)
            entry.leader_epoch = record.leader_epoch
        if record is None or record.leader_id == NO_LEADER:
            leaderless = True
        else:
            entry.leader_id = record.leader_id
    return leaderless


# ---- the cluster ---------------------------------------------------------------------------------


def _describe_configs(catalog: Catalog, _: messages.DescribeClusterConfigsRequest) -> Answer:
    response = messages.DescribeClusterConfigsResponse()
    dynamic = dict(catalog.configs.dynamic)
    told = [(key, value, DYNAMIC) for key, value in catalog.configs.dynamic]
    told += [(key, value, INITIAL) for key, value in catalog.configs.initial if key not in dynamic]
    for key, value, source in sorted(told):
        shown = HIDDEN if _is_secret(key) else value
        response.configs.add(config_key=key, config_value=shown, config_source=source)
    return Answer(response)


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in SECRET_WORDS)


def _cluster_health(catalog: Catalog, _: messages.GetClusterHealthRequest) -> Answer:
    replicas = in_sync = active = 0
    for record in catalog.buckets.values():
        replicas += len(record.replicas)
        in_sync += len(record.isr)
        leader = catalog.nodes.get(record.leader_id)
        active += leader is not None and leader.incarnation == record.leader_incarnation
    status = Health.GREEN if in_sync == replicas else Health.YELLOW
    if active < len(catalog.buckets):
        status = Health.RED
    return Answer(
        messages.GetClusterHealthResponse(
            num_replicas=replicas,
            in_sync_replicas=in_sync,
            num_leader_replicas=len(catalog.buckets),
            active_leader_replicas=active,
            status=status,
        )
    )


def _security_token(_: Catalog, __: messages.GetFileSystemSecurityTokenRequest) -> Answer:
    """All that there is to read lies in local files, for which nobody needs credentials."""
    return Answer(messages.GetFileSystemSecurityTokenResponse(schema="file", token=b""))


_HANDLERS: Final[dict[int, Callable[[Catalog, Any], Answer]]] = {
    ApiKey.LIST_DATABASES: _list_databases,
    ApiKey.DATABASE_EXISTS: _database_exists,
    ApiKey.GET_DATABASE_INFO: _get_database_info,
    ApiKey.LIST_TABLES: _list_tables,
    ApiKey.TABLE_EXISTS: _table_exists,
    ApiKey.GET_TABLE_INFO: _get_table_info,
    ApiKey.GET_TABLE_SCHEMA: _get_table_schema,
    ApiKey.LIST_PARTITION_INFOS: _list_partition_infos,
    ApiKey.GET_METADATA: _get_metadata,
    ApiKey.DESCRIBE_CLUSTER_CONFIGS: _describe_configs,
    ApiKey.GET_CLUSTER_HEALTH: _cluster_health,
    ApiKey.GET_FILESYSTEM_SECURITY_TOKEN: _security_token,
}

ANSWERED: Final = frozenset(_HANDLERS) | frozenset(absent.HANDLERS)
"""The APIs that `answer` knows."""
