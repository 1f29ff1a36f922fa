"""Answers about what there is none of yet: snapshots, leases of them, tiered logs, lakes, ACLs.

Pure functions of (catalog, request), as in answers.py. What is asked about is checked as upstream does,
so that a client learns the truth: there is nothing. A lease keeps snapshots from being erased; as there
are none, none is available, and nothing is kept of the lease itself. Whatever comes to be moves out of
here, with its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.lookups import table_of
from flussd.core.catalog.records import TableRecord
from flussd.core.records.refusal import Refused
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode


def _of_primary_key(table: TableRecord) -> TableRecord:
    if not table.has_primary_key:
        text = f"table {table.database}.{table.name} has no primary key, and so no snapshots"
        raise Refused(ErrorCode.NON_PRIMARY_KEY_TABLE_EXCEPTION, text)
    return table


# ---- snapshots -----------------------------------------------------------------------------------


def _latest_snapshots(
    catalog: Catalog, asked: messages.GetLatestKvSnapshotsRequest
) -> messages.GetLatestKvSnapshotsResponse:
    table = _of_primary_key(table_of(catalog, asked.table_path))
    response = messages.GetLatestKvSnapshotsResponse(table_id=table.table_id)
    where, name, count = f"table {table.database}.{table.name}", asked.partition_name, table.bucket_count
    if table.is_partitioned:
        partition_id = catalog.partition_names.get(table.table_id, {}).get(name)
        if partition_id is None:
            text = f"{where} has no partition {name}" if name else f"{where}: expected a partition"
            raise Refused(ErrorCode.PARTITION_NOT_EXISTS, text)
        response.partition_id = partition_id
        count = catalog.partitions[partition_id].bucket_count
    elif asked.HasField("partition_name"):
        raise Refused(ErrorCode.TABLE_NOT_PARTITIONED_EXCEPTION, f"{where} is not partitioned")
    for bucket in range(count):
        response.latest_snapshots.add(bucket_id=bucket)
    return response


def _snapshot_metadata(_: Catalog, asked: messages.GetKvSnapshotMetadataRequest) -> Any:
    partition = f" of partition {asked.partition_id}" if asked.HasField("partition_id") else ""
    where = f"table {asked.table_id}, bucket {asked.bucket_id}{partition}"
    raise Refused(ErrorCode.KV_SNAPSHOT_NOT_EXIST, f"{where}: there is no snapshot {asked.snapshot_id}")


def _listed(
    catalog: Catalog, asked: messages.ListKvSnapshotsRequest | messages.ListRemoteLogManifestsRequest
) -> None:
    """Refuse a listing of what does not exist: a table (7), a partition of it (36)."""
    if catalog.table_by_id(asked.table_id) is None:
        raise Refused(ErrorCode.TABLE_NOT_EXIST, f"there is no table with id {asked.table_id}")
    if asked.HasField("partition_id"):
        partition = catalog.partitions.get(asked.partition_id)
        if partition is None or partition.table_id != asked.table_id:
            text = f"table {asked.table_id} has no partition with id {asked.partition_id}"
            raise Refused(ErrorCode.PARTITION_NOT_EXISTS, text)


def _list_snapshots(
    catalog: Catalog, asked: messages.ListKvSnapshotsRequest
) -> messages.ListKvSnapshotsResponse:
    _listed(catalog, asked)
    response = messages.ListKvSnapshotsResponse(table_id=asked.table_id)
    if asked.HasField("partition_id"):
        response.partition_id = asked.partition_id
    return response


def _list_manifests(
    catalog: Catalog, asked: messages.ListRemoteLogManifestsRequest
) -> messages.ListRemoteLogManifestsResponse:
    _listed(catalog, asked)
    return messages.ListRemoteLogManifestsResponse()


# ---- leases --------------------------------------------------------------------------------------


def _acquire_lease(
    catalog: Catalog, asked: messages.AcquireKvSnapshotLeaseRequest
) -> messages.AcquireKvSnapshotLeaseResponse:
    if not asked.lease_id:
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, "lease id: expected at least one character")
    for wanted in asked.snapshots_to_lease:
        table = catalog.table_by_id(wanted.table_id)
        if table is None:
            text = f"there is no table with id {wanted.table_id}"
            raise Refused(ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION, text)
        _of_primary_key(table)
    response = messages.AcquireKvSnapshotLeaseResponse()
    response.unavailable_snapshots.extend(one for one in asked.snapshots_to_lease if one.bucket_snapshots)
    return response


def _release_lease(_: Catalog, __: messages.ReleaseKvSnapshotLeaseRequest) -> Any:
    """A lease that nobody holds is released already."""
    return messages.ReleaseKvSnapshotLeaseResponse()


def _drop_lease(_: Catalog, __: messages.DropKvSnapshotLeaseRequest) -> Any:
    """A lease that nobody holds is dropped already."""
    return messages.DropKvSnapshotLeaseResponse()


# ---- lakes, ACLs ---------------------------------------------------------------------------------


def _lake_snapshot(catalog: Catalog, asked: messages.GetLakeSnapshotRequest) -> Any:
    table = table_of(catalog, asked.table_path)
    where = f"table {table.database}.{table.name}"
    if asked.HasField("snapshot_id") and asked.readable:
        text = f"{where}: expected a snapshot id or `readable`, got both"
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
    wanted = f"lake snapshot {asked.snapshot_id}" if asked.HasField("snapshot_id") else "lake snapshot"
    raise Refused(ErrorCode.LAKE_SNAPSHOT_NOT_EXIST, f"{where} has no {wanted}")


def _no_authorizer(_: Catalog, __: Any) -> Any:
    raise Refused(ErrorCode.SECURITY_DISABLED_EXCEPTION, "there is no authorizer, and so there are no ACLs")


HANDLERS: Final[dict[int, Callable[[Catalog, Any], Any]]] = {
    ApiKey.GET_LATEST_KV_SNAPSHOTS: _latest_snapshots,
    ApiKey.GET_KV_SNAPSHOT_METADATA: _snapshot_metadata,
    ApiKey.LIST_KV_SNAPSHOTS: _list_snapshots,
    ApiKey.LIST_REMOTE_LOG_MANIFESTS: _list_manifests,
    ApiKey.ACQUIRE_KV_SNAPSHOT_LEASE: _acquire_lease,
    ApiKey.RELEASE_KV_SNAPSHOT_LEASE: _release_lease,
    ApiKey.DROP_KV_SNAPSHOT_LEASE: _drop_lease,
    ApiKey.GET_LAKE_SNAPSHOT: _lake_snapshot,
    ApiKey.CREATE_ACLS: _no_authorizer,
    ApiKey.LIST_ACLS: _no_authorizer,
    ApiKey.DROP_ACLS: _no_authorizer,
}
