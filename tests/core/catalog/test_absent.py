"""What there is none of yet: the answers say so, and the refusals have the codes of the recorded cases."""

import json

import pytest

from flussd.core.catalog.answers import answer
from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.records import DatabaseRecord, PartitionRecord, SchemaRecord, TableRecord
from flussd.core.records.refusal import Refused
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

LOG, KEYED, PARTS = 1, 2, 3
TABLES = (("log", LOG, [], []), ("keyed", KEYED, ["a"], []), ("parts", PARTS, ["a", "p"], ["p"]))


@pytest.fixture
def catalog():
    """A log table, one with a primary key and two buckets, and a partitioned one whose partition has 3."""
    made = Catalog()
    made.put_database(DatabaseRecord("db", b"{}", 1, 2))
    for name, table_id, key, partition_key in TABLES:
        described = {"partition_key": partition_key, "bucket_count": 2, "properties": {}}
        schema = json.dumps({"columns": [], "primary_key": key}).encode()
        record = TableRecord.of(
            ("db", name),
            table_id,
            json.dumps(described).encode(),
            (SchemaRecord(1, schema),),
            created_ms=1,
            modified_ms=1,
        )
        made.put_table(record)
    made.put_partition(PartitionRecord(PARTS, 9, "x", 3))
    return made


def path(name):
    return messages.PbTablePath(database_name="db", table_name=name)


def ask(catalog, api_key, **fields):
    """The answer, or the code of the refusal."""
    try:
        return answer(catalog, api_key, messages.request_class(api_key)(**fields)).message
    except Refused as refused:
        return refused.code


def test_no_bucket_has_a_snapshot(catalog):
    """One entry for each bucket, without a snapshot; of a partition as many as it has."""
    keyed = ask(catalog, ApiKey.GET_LATEST_KV_SNAPSHOTS, table_path=path("keyed"))
    parts = ask(catalog, ApiKey.GET_LATEST_KV_SNAPSHOTS, table_path=path("parts"), partition_name="x")

    assert [(0, False), (1, False)] == [
        (one.bucket_id, one.HasField("snapshot_id")) for one in keyed.latest_snapshots
    ]
    assert (KEYED, False) == (keyed.table_id, keyed.HasField("partition_id"))
    assert (PARTS, 9, 3) == (parts.table_id, parts.partition_id, len(parts.latest_snapshots))


@pytest.mark.parametrize(
    ("name", "partition", "code"),
    [
        ("nope", None, E.TABLE_NOT_EXIST),
        ("log", None, E.NON_PRIMARY_KEY_TABLE_EXCEPTION),
        ("keyed", "x", E.TABLE_NOT_PARTITIONED_EXCEPTION),
        ("parts", None, E.PARTITION_NOT_EXISTS),
        ("parts", "y", E.PARTITION_NOT_EXISTS),
    ],
)
def test_snapshots_of_what_has_none(catalog, name, partition, code):
    """A name is mandatory for partitioned tables and forbidden for others."""
    assert code == ask(
        catalog, ApiKey.GET_LATEST_KV_SNAPSHOTS, table_path=path(name), partition_name=partition
    )


@pytest.mark.parametrize("api_key", [ApiKey.LIST_KV_SNAPSHOTS, ApiKey.LIST_REMOTE_LOG_MANIFESTS])
def test_lists_are_empty(catalog, api_key):
    """For a table, and for a partition of this table; what does not exist is told."""
    whole = ask(catalog, api_key, table_id=PARTS)
    part = ask(catalog, api_key, table_id=PARTS, partition_id=9)

    assert not [name for message in (whole, part) for name in ("active_snapshots", "manifests")
                if getattr(message, name, ())]  # fmt: skip
    assert E.TABLE_NOT_EXIST == ask(catalog, api_key, table_id=99)
    assert E.PARTITION_NOT_EXISTS == ask(catalog, api_key, table_id=PARTS, partition_id=8)
    assert E.PARTITION_NOT_EXISTS == ask(catalog, api_key, table_id=KEYED, partition_id=9)


def test_a_listing_names_what_it_is_of(catalog):
    """The ids come back."""
    part = ask(catalog, ApiKey.LIST_KV_SNAPSHOTS, table_id=PARTS, partition_id=9)

    assert (PARTS, 9) == (part.table_id, part.partition_id)


def test_a_lease_gets_nothing(catalog):
    """All that it asks for is unavailable, for there are no snapshots; ending it is fine at any time."""
    bucket = messages.PbKvSnapshotLeaseForBucket(bucket_id=0, snapshot_id=1)
    wanted = messages.PbKvSnapshotLeaseForTable(table_id=KEYED, bucket_snapshots=[bucket])
    nothing = messages.PbKvSnapshotLeaseForTable(table_id=KEYED)
    fields = {"lease_id": "x", "lease_duration_ms": 1000}
    told = ask(catalog, ApiKey.ACQUIRE_KV_SNAPSHOT_LEASE, snapshots_to_lease=[wanted, nothing], **fields)

    assert [wanted] == list(told.unavailable_snapshots)
    assert not ask(catalog, ApiKey.ACQUIRE_KV_SNAPSHOT_LEASE, **fields).unavailable_snapshots
    assert not isinstance(ask(catalog, ApiKey.RELEASE_KV_SNAPSHOT_LEASE, lease_id="x"), int)
    assert not isinstance(ask(catalog, ApiKey.DROP_KV_SNAPSHOT_LEASE, lease_id="x"), int)


@pytest.mark.parametrize(
    ("lease_id", "table_id", "code"),
    [
        ("x", LOG, E.NON_PRIMARY_KEY_TABLE_EXCEPTION),
        ("x", 99, E.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION),
        ("", KEYED, E.UNKNOWN_SERVER_ERROR),
    ],
)
def test_leases_of_what_cannot_be(catalog, lease_id, table_id, code):
    """Only tables with a primary key have snapshots."""
    wanted = messages.PbKvSnapshotLeaseForTable(table_id=table_id)

    assert code == ask(
        catalog,
        ApiKey.ACQUIRE_KV_SNAPSHOT_LEASE,
        lease_id=lease_id,
        lease_duration_ms=1,
        snapshots_to_lease=[wanted],
    )


def test_no_snapshot_is_found_by_its_id(catalog):
    """In a bucket, in no bucket, in no table."""
    for table_id in (KEYED, LOG, 99):
        fields = {"table_id": table_id, "bucket_id": 0, "snapshot_id": 0}
        assert E.KV_SNAPSHOT_NOT_EXIST == ask(catalog, ApiKey.GET_KV_SNAPSHOT_METADATA, **fields)


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("log", {}, E.LAKE_SNAPSHOT_NOT_EXIST),
        ("log", {"snapshot_id": 5, "readable": False}, E.LAKE_SNAPSHOT_NOT_EXIST),
        ("log", {"snapshot_id": 5, "readable": True}, E.UNKNOWN_SERVER_ERROR),
        ("nope", {}, E.TABLE_NOT_EXIST),
    ],
)
def test_no_table_is_in_a_lake(catalog, name, fields, code):
    """Both selectors at once are no question."""
    assert code == ask(catalog, ApiKey.GET_LAKE_SNAPSHOT, table_path=path(name), **fields)


def test_there_is_no_authorizer(catalog):
    """Whatever is asked of ACLs."""
    wanted = {"resource_type": 1, "operation_type": 1, "permission_type": 1}
    acl_filter = messages.PbAclFilter(**wanted)

    assert E.SECURITY_DISABLED_EXCEPTION == ask(catalog, ApiKey.CREATE_ACLS)
    assert E.SECURITY_DISABLED_EXCEPTION == ask(catalog, ApiKey.DROP_ACLS, acl_filter=[acl_filter])
    assert E.SECURITY_DISABLED_EXCEPTION == ask(catalog, ApiKey.LIST_ACLS, acl_filter=acl_filter)
