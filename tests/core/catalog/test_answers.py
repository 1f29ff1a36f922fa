"""Answers to read-only requests, and the exact code of each refusal."""

import json

import pytest

from flussd.core.catalog import answers
from flussd.core.catalog.answers import ANSWERED, answer
from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.records import (
    BucketRecord,
    ConfigsRecord,
    DatabaseRecord,
    NodeRecord,
    SchemaRecord,
    TableRecord,
)
from flussd.core.records.refusal import Refused
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E
from flussd.core.wire.served import READ_ONLY, SERVED_BY_COORDINATOR, SERVED_BY_TABLET

SCHEMAS = (SchemaRecord(1, b'{"columns":[]}'), SchemaRecord(2, b'{"columns":[],"version":1}'))


def path(name="t", database="db"):
    return messages.PbTablePath(database_name=database, table_name=name)


@pytest.fixture
def catalog():
    """A database with a table of two buckets, both led, and a partitioned one."""
    made = Catalog()
    made.put_coordinator(NodeRecord(0, "c", 9123))
    made.put_nodes([NodeRecord(3, "t3", 3, 1), NodeRecord(1, "t1", 1, 1)])
    made.put_database(DatabaseRecord("db", b"{}", 1, 2))
    made.put_database(DatabaseRecord("a", b"{}", 3, 4))
    for name, table_id, keys in (("t", 7, []), ("p", 8, ["a"])):
        value = {"partition_key": keys, "bucket_count": 2, "properties": {}}
        data = json.dumps(value).encode()
        made.put_table(TableRecord.of(("db", name), table_id, data, SCHEMAS, created_ms=5, modified_ms=6))
    for number in range(2):
        made.put_bucket(BucketRecord((7, -1, number), (1, 3), 1, 1, 4, (1, 3), 0, 0))
    return made


def refusal(catalog, api_key, message):
    with pytest.raises(Refused) as caught:
        answer(catalog, api_key, message)
    return caught.value.code


def test_what_is_served_is_answered():
    """Every read-only API is answered here, but for what the edge answers; some by one server only."""
    assert READ_ONLY - {ApiKey.API_VERSIONS, ApiKey.AUTHENTICATE} == ANSWERED & SERVED_BY_TABLET
    assert ANSWERED <= SERVED_BY_COORDINATOR


def test_databases(catalog):
    """Names in order; summaries instead of names when asked for."""
    names = answer(catalog, ApiKey.LIST_DATABASES, messages.ListDatabasesRequest()).message
    asked = messages.ListDatabasesRequest(include_summary=True)
    summaries = answer(catalog, ApiKey.LIST_DATABASES, asked).message
    info = messages.GetDatabaseInfoRequest(database_name="db")

    assert ["a", "db"] == list(names.database_name)
    assert [("a", 3, 0), ("db", 1, 2)] == [
        (one.database_name, one.created_time, one.table_count) for one in summaries.database_summary
    ]
    assert not summaries.database_name
    assert 2 == answer(catalog, ApiKey.GET_DATABASE_INFO, info).message.modified_time


def test_existence_never_fails(catalog):
    """Bad names are just not there."""
    for name, there in (("db", True), ("a.b", False), ("", False)):
        asked = messages.DatabaseExistsRequest(database_name=name)
        assert there == answer(catalog, ApiKey.DATABASE_EXISTS, asked).message.exists
    for name, there in (("t", True), ("$", False)):
        asked = messages.TableExistsRequest(table_path=path(name))
        assert there == answer(catalog, ApiKey.TABLE_EXISTS, asked).message.exists


def test_refusals(catalog):
    """4 for databases, 7 for tables, 9 for schemas even when the table is missing, 36 for partitions."""
    physical = messages.PbPhysicalTablePath(database_name="db", table_name="t", partition_name="x")
    cases = (
        (E.DATABASE_NOT_EXIST, ApiKey.GET_DATABASE_INFO, {"database_name": "x"}),
        (E.DATABASE_NOT_EXIST, ApiKey.LIST_TABLES, {"database_name": "x"}),
        (E.TABLE_NOT_EXIST, ApiKey.GET_TABLE_INFO, {"table_path": path("x")}),
        (E.SCHEMA_NOT_EXIST, ApiKey.GET_TABLE_SCHEMA, {"table_path": path("x")}),
        (E.SCHEMA_NOT_EXIST, ApiKey.GET_TABLE_SCHEMA, {"table_path": path(), "schema_id": 3}),
        (E.SCHEMA_NOT_EXIST, ApiKey.GET_TABLE_SCHEMA, {"table_path": path(), "schema_id": 0}),
        (E.TABLE_NOT_EXIST, ApiKey.GET_METADATA, {"table_path": [path(), path("x")]}),
        (E.PARTITION_NOT_EXISTS, ApiKey.GET_METADATA, {"partitions_path": [physical]}),
        (E.PARTITION_NOT_EXISTS, ApiKey.GET_METADATA, {"partitions_id": [1]}),
    )
    for code, api_key, fields in cases:
        assert code == refusal(catalog, api_key, messages.request_class(api_key)(**fields)), (
            api_key,
            fields,
        )


def test_schemas_by_id(catalog):
    """The newest unless one is named."""
    newest = answer(catalog, ApiKey.GET_TABLE_SCHEMA, messages.GetTableSchemaRequest(table_path=path()))
    asked = messages.GetTableSchemaRequest(table_path=path(), schema_id=1)

    assert (2, SCHEMAS[1].json) == (newest.message.schema_id, newest.message.schema_json)
    assert 1 == answer(catalog, ApiKey.GET_TABLE_SCHEMA, asked).message.schema_id


def test_empty_metadata_is_the_nodes(catalog):
    """Bootstrap: the coordinator and the tablet servers by id, and nothing else."""
    found = answer(catalog, ApiKey.GET_METADATA, messages.MetadataRequest())

    assert ("c", 9123) == (found.message.coordinator_server.host, found.message.coordinator_server.port)
    assert [(1, "t1"), (3, "t3")] == [(one.node_id, one.host) for one in found.message.tablet_servers]
    assert (0, False) == (len(found.message.table_metadata), found.leaderless)


def test_tables_are_introduced(catalog, monkeypatch):
    """With the nodes, pyfluss alone is told of tables: partitioned ones first, as far as there is room."""

    def told(client, **asked):
        found = answer(catalog, ApiKey.GET_METADATA, messages.MetadataRequest(**asked), client)
        assert not found.leaderless
        return [one.table_path.table_name for one in found.message.table_metadata]

    catalog.drop_bucket((7, -1, 1))
    assert ["p", "t"] == told("fluss-rust")
    assert [] == told("fluss") == told("")
    assert ["p"] == told("fluss-rust", table_path=[path("p")])
    monkeypatch.setattr(answers, "INTRODUCTION_BYTES_MAX", 300)
    assert ["p"] == told("fluss-rust")
    monkeypatch.setattr(answers, "INTRODUCTION_BYTES_MAX", 10)
    assert [] == told("fluss-rust")


def test_a_partition_without_a_name_is_the_table(catalog):
    """Behind a failed write, pyfluss asks for a table twice, once as a partition: it is told once."""
    nameless = messages.PbPhysicalTablePath(database_name="db", table_name="t")
    for asked in ({"table_path": [path()]}, {}):
        request = messages.MetadataRequest(partitions_path=[nameless], **asked)
        found = answer(catalog, ApiKey.GET_METADATA, request).message

        assert ([7], 0) == ([one.table_id for one in found.table_metadata], len(found.partition_metadata))
        assert 2 == len(found.table_metadata[0].bucket_metadata)


def test_metadata_of_a_table(catalog):
    """One entry a bucket, with leader, epoch and replicas; a partitioned table has none of its own."""
    asked = messages.MetadataRequest(table_path=[path(), path("p")])
    found = answer(catalog, ApiKey.GET_METADATA, asked)
    plain, partitioned = found.message.table_metadata

    assert not found.leaderless
    assert [(0, 1, 4, [1, 3]), (1, 1, 4, [1, 3])] == [
        (one.bucket_id, one.leader_id, one.leader_epoch, list(one.replica_id))
        for one in plain.bucket_metadata
    ]
    assert 0 == len(partitioned.bucket_metadata)


@pytest.mark.parametrize("is_made", [True, False])
def test_a_bucket_without_leader(catalog, is_made):
    """Its entry has no leader_id, whether its record is made or not, and the caller is told."""
    if is_made:
        catalog.put_bucket(BucketRecord((7, -1, 1), (1,), -1, -1, 5, (1,), 1, 0))
    else:
        catalog.drop_bucket((7, -1, 1))
    found = answer(catalog, ApiKey.GET_METADATA, messages.MetadataRequest(table_path=[path()]))

    assert found.leaderless
    entries = found.message.table_metadata[0].bucket_metadata
    assert [True, False] == [one.HasField("leader_id") for one in entries]


def health(catalog):
    found = answer(catalog, ApiKey.GET_CLUSTER_HEALTH, messages.GetClusterHealthRequest()).message
    return (
        found.num_replicas,
        found.in_sync_replicas,
        found.num_leader_replicas,
        found.active_leader_replicas,
        found.status,
    )


def test_health(catalog):
    """Green, yellow without a replica in sync, red without a leader that lives in its incarnation."""
    assert (0, 0, 0, 0, 0) == health(Catalog())
    assert (4, 4, 2, 2, 0) == health(catalog)
    catalog.put_bucket(BucketRecord((7, -1, 0), (1, 3), 1, 1, 4, (1,), 0, 0))
    assert (4, 3, 2, 2, 1) == health(catalog)
    catalog.put_bucket(BucketRecord((7, -1, 0), (1, 3), -1, -1, 5, (1,), 0, 0))
    assert (4, 3, 2, 1, 2) == health(catalog)
    catalog.put_nodes([NodeRecord(3, "t3", 3, 1), NodeRecord(1, "t1", 1, 2)])
    assert (4, 3, 2, 0, 2) == health(catalog)


def test_configs_are_described(catalog):
    """In order; what was set hides what was there at the start, and secrets are hidden themselves."""
    initial = (("a", "1"), ("b", "2"))
    catalog.put_configs(ConfigsRecord(initial, (("b", "3"), ("datalake.x.secret-key", "hunter2"))))
    found = answer(catalog, ApiKey.DESCRIBE_CLUSTER_CONFIGS, messages.DescribeClusterConfigsRequest())

    assert [
        ("a", "1", "INITIAL_SERVER_CONFIG"),
        ("b", "3", "DYNAMIC_SERVER_CONFIG"),
        ("datalake.x.secret-key", "******", "DYNAMIC_SERVER_CONFIG"),
    ] == [(one.config_key, one.config_value, one.config_source) for one in found.message.configs]


def test_files_need_no_token():
    """Local files are all there is: the scheme says so, and the token is empty."""
    asked = messages.GetFileSystemSecurityTokenRequest()
    found = answer(Catalog(), ApiKey.GET_FILESYSTEM_SECURITY_TOKEN, asked).message

    assert ("file", b"", False) == (found.schema, found.token, found.HasField("expiration_time"))
