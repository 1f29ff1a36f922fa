"""Which APIs each kind of server serves: what API_VERSIONS lists, and nothing else is answered.

An API enters these sets with the code and the tests that serve it; docs/compatibility.md is compared
with them by a test.
"""

from __future__ import annotations

from typing import Final

from flussd.core.wire.apis import ApiKey

READ_ONLY: Final = frozenset(
    {
        ApiKey.API_VERSIONS,
        ApiKey.AUTHENTICATE,
        ApiKey.LIST_DATABASES,
        ApiKey.DATABASE_EXISTS,
        ApiKey.GET_DATABASE_INFO,
        ApiKey.LIST_TABLES,
        ApiKey.TABLE_EXISTS,
        ApiKey.GET_TABLE_INFO,
        ApiKey.GET_TABLE_SCHEMA,
        ApiKey.LIST_PARTITION_INFOS,
        ApiKey.GET_METADATA,
        ApiKey.GET_FILESYSTEM_SECURITY_TOKEN,
        ApiKey.DESCRIBE_CLUSTER_CONFIGS,
        ApiKey.GET_CLUSTER_HEALTH,
        ApiKey.LIST_ACLS,
        ApiKey.GET_LATEST_KV_SNAPSHOTS,
        ApiKey.GET_KV_SNAPSHOT_METADATA,
        ApiKey.GET_LAKE_SNAPSHOT,
    }
)
"""Answered at the edge or from the catalog, on every server."""

SERVED_BY_COORDINATOR: Final = READ_ONLY | {
    ApiKey.CREATE_DATABASE,
    ApiKey.DROP_DATABASE,
    ApiKey.CREATE_TABLE,
    ApiKey.DROP_TABLE,
    ApiKey.ALTER_DATABASE,
    ApiKey.ALTER_TABLE,
    ApiKey.CREATE_PARTITION,
    ApiKey.DROP_PARTITION,
    ApiKey.ALTER_CLUSTER_CONFIGS,
    ApiKey.REGISTER_PRODUCER_OFFSETS,
    ApiKey.GET_PRODUCER_OFFSETS,
    ApiKey.DELETE_PRODUCER_OFFSETS,
    ApiKey.ADD_SERVER_TAG,
    ApiKey.REMOVE_SERVER_TAG,
    ApiKey.REBALANCE,
    ApiKey.LIST_REBALANCE_PROGRESS,
    ApiKey.CANCEL_REBALANCE,
    ApiKey.CREATE_ACLS,
    ApiKey.DROP_ACLS,
    ApiKey.LIST_KV_SNAPSHOTS,
    ApiKey.LIST_REMOTE_LOG_MANIFESTS,
    ApiKey.ACQUIRE_KV_SNAPSHOT_LEASE,
    ApiKey.RELEASE_KV_SNAPSHOT_LEASE,
    ApiKey.DROP_KV_SNAPSHOT_LEASE,
}

SERVED_BY_TABLET: Final = READ_ONLY | {
    ApiKey.INIT_WRITER,
    ApiKey.PRODUCE_LOG,
    ApiKey.FETCH_LOG,
    ApiKey.LIST_OFFSETS,
    ApiKey.LIMIT_SCAN,
    ApiKey.GET_TABLE_STATS,
    ApiKey.PUT_KV,
    ApiKey.LOOKUP,
    ApiKey.PREFIX_LOOKUP,
    ApiKey.SCAN_KV,
}
