"""The official client manages databases and tables: what works, and the exact code of each refusal."""

import fluss
import pyarrow as pa
import pytest

E = fluss.ErrorCode

SCHEMA = pa.schema([pa.field("id", pa.int32(), nullable=False), pa.field("name", pa.string())])


class Refused:
    """Expects a FlussError with one code."""

    def __init__(self, code):
        self.code = code

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is fluss.FlussError, f"expected error {self.code}, got {error!r}"
        assert self.code == error.error_code, str(error)
        return True


def descriptor(schema=SCHEMA, **options):
    return fluss.TableDescriptor(fluss.Schema(schema), **options)


# ---- databases -----------------------------------------------------------------------------------


async def test_a_database_comes_and_goes(connect):
    """Create, exists, list and drop agree with each other."""
    async with connect() as client:
        admin = client.admin
        name = client.database + "_x"
        before = await admin.database_exists(name)
        await admin.create_database(name)
        during = (await admin.database_exists(name), name in await admin.list_databases())
        await admin.drop_database(name)
        after = (await admin.database_exists(name), name in await admin.list_databases())

        assert (False, (True, True), (False, False)) == (before, during, after)


async def test_a_database_exists_already(connect):
    """Creating it again is refused, unless that is to be ignored."""
    async with connect() as client:
        with Refused(E.DATABASE_ALREADY_EXIST):
            await client.admin.create_database(client.database)
        await client.admin.create_database(client.database, ignore_if_exists=True)


async def test_a_missing_database(connect):
    """Dropping, describing and filling it are refused; a drop can be told to ignore that."""
    async with connect() as client:
        with Refused(E.DATABASE_NOT_EXIST):
            await client.admin.drop_database("no_such")
        with Refused(E.DATABASE_NOT_EXIST):
            await client.admin.get_database_info("no_such")
        with Refused(E.DATABASE_NOT_EXIST):
            await client.admin.list_tables("no_such")
        with Refused(E.DATABASE_NOT_EXIST):
            await client.admin.create_table(fluss.TablePath("no_such", "t"), descriptor())
        await client.admin.drop_database("no_such", ignore_if_not_exists=True)


async def test_a_database_with_tables(connect):
    """It is dropped only with all that is in it, when asked to."""
    async with connect() as client:
        await client.create("t", SCHEMA)
        with Refused(E.DATABASE_NOT_EMPTY):
            await client.admin.drop_database(client.database, cascade=False)
        kept = await client.admin.table_exists(client.path("t"))
        await client.admin.drop_database(client.database, cascade=True)

        assert kept
        assert not await client.admin.database_exists(client.database)
        assert not await client.admin.table_exists(client.path("t"))


async def test_a_database_is_described(connect):
    """Comment, properties and time of creation come back."""
    async with connect() as client:
        name = client.database + "_described"
        wanted = fluss.DatabaseDescriptor(comment="all of it", custom_properties={"owner": "me"})
        await client.admin.create_database(name, wanted)
        info = await client.admin.get_database_info(name)
        found = info.get_database_descriptor()

        assert (name, "all of it", {"owner": "me"}) == (
            info.database_name,
            found.comment,
            found.get_custom_properties(),
        )
        assert info.created_time > 1_600_000_000_000


@pytest.mark.parametrize("name", ["a b", "a.b", "x" * 201, "__internal", "a/b"])
async def test_names_of_databases(connect, name):
    """Names have rules, and a bad one leaves nothing behind."""
    async with connect() as client:
        before = await client.admin.list_databases()
        with Refused(E.INVALID_DATABASE_EXCEPTION):
            await client.admin.create_database(name)

        assert before == await client.admin.list_databases()


# ---- tables --------------------------------------------------------------------------------------


async def test_a_table_comes_and_goes(connect):
    """Create, exists, list, get and drop agree with each other."""
    async with connect() as client:
        path = client.path("t")
        before = (await client.admin.table_exists(path), await client.admin.list_tables(client.database))
        await client.create("t", SCHEMA)
        during = (await client.admin.table_exists(path), await client.admin.list_tables(client.database))
        await client.admin.drop_table(path)
        after = (await client.admin.table_exists(path), await client.admin.list_tables(client.database))

        assert ((False, []), (True, ["t"]), (False, [])) == (before, during, after)


async def test_a_table_exists_already(connect):
    """Creating it again is refused, unless that is to be ignored, and does not change it."""
    async with connect() as client:
        table = await client.create("t", SCHEMA, buckets=2)
        with Refused(E.TABLE_ALREADY_EXIST):
            await client.admin.create_table(client.path("t"), descriptor(bucket_count=3))
        await client.admin.create_table(client.path("t"), descriptor(bucket_count=3), ignore_if_exists=True)
        info = await client.admin.get_table_info(client.path("t"))

        assert (table.get_table_info().table_id, 2) == (info.table_id, info.num_buckets)


async def test_a_missing_table(connect):
    """Dropping, describing and opening it are refused; a drop can be told to ignore that."""
    async with connect() as client:
        path = client.path("no_such")
        with Refused(E.TABLE_NOT_EXIST):
            await client.admin.drop_table(path)
        with Refused(E.TABLE_NOT_EXIST):
            await client.admin.get_table_info(path)
        with Refused(E.TABLE_NOT_EXIST):
            await client.connection.get_table(path)
        with pytest.raises(fluss.FlussError):  # the Java server says -1 here
            await client.admin.list_offsets(path, [0], fluss.OffsetSpec.latest())
        await client.admin.drop_table(path, ignore_if_not_exists=True)


async def test_a_table_is_described(connect):
    """What was asked for at creation comes back, with an id and times."""
    async with connect() as client:
        table = await client.create(
            "t",
            SCHEMA,
            buckets=3,
            bucket_keys=["id"],
            comment="people",
            custom_properties={"owner": "me"},
        )
        info = await client.admin.get_table_info(client.path("t"))

        assert (3, ["id"], "people", {"owner": "me"}) == (
            info.num_buckets,
            info.get_bucket_keys(),
            info.comment,
            info.get_custom_properties(),
        )
        assert (["id", "name"], 1, False, False) == (
            info.get_column_names(),
            info.schema_id,
            info.has_primary_key(),
            info.is_partitioned(),
        )
        assert info.table_id == table.get_table_info().table_id
        assert info.created_time > 1_600_000_000_000
        assert "1" == info.get_properties()["table.replication.factor"]


async def test_column_types_come_back(connect):
    """Each column type, nested ones too, is the same after a round through the server."""
    types = {
        "a": pa.bool_(),
        "b": pa.int8(),
        "c": pa.int16(),
        "d": pa.int32(),
        "e": pa.int64(),
        "f": pa.float32(),
        "g": pa.float64(),
        "h": pa.string(),
        "i": pa.binary(),
        "j": pa.date32(),
        "k": pa.time32("ms"),
        "l": pa.timestamp("us"),
        "m": pa.timestamp("us", tz="UTC"),
        "n": pa.decimal128(20, 4),
        "o": pa.list_(pa.int32()),
        "p": pa.map_(pa.string(), pa.int64()),
        "q": pa.struct([pa.field("x", pa.int32()), pa.field("y", pa.list_(pa.string()))]),
    }
    async with connect() as client:
        wanted = fluss.Schema(pa.schema(list(types.items())))
        await client.admin.create_table(client.path("t"), fluss.TableDescriptor(wanted, bucket_count=1))
        found = (await client.admin.get_table_info(client.path("t"))).get_schema()

        assert wanted.get_columns() == found.get_columns()
        assert len(types) == len(found.get_columns())


async def test_ids_are_not_used_again(connect):
    """A table of the same name is another table."""
    async with connect() as client:
        first = (await client.create("t", SCHEMA)).get_table_info().table_id
        await client.admin.drop_table(client.path("t"))
        second = (await client.create("t", SCHEMA)).get_table_info().table_id

        assert second > first


async def test_the_default_number_of_buckets(connect):
    """A table that names no number gets the cluster's."""
    async with connect() as client:
        await client.admin.create_table(client.path("t"), descriptor())

        assert 1 == (await client.admin.get_table_info(client.path("t"))).num_buckets


async def test_more_replicas_than_servers(connect):
    """A replication factor that cannot be had is refused, and the table is not there."""
    async with connect() as client:
        with Refused(E.INVALID_REPLICATION_FACTOR):
            await client.admin.create_table(
                client.path("t"), descriptor(properties={"table.replication.factor": "3"})
            )

        assert not await client.admin.table_exists(client.path("t"))


@pytest.mark.parametrize("name", ["", "a b", "a.b", "x" * 201, "__internal"])
async def test_names_of_tables(connect, name):
    """Names have rules, and a bad one leaves nothing behind."""
    async with connect() as client:
        with Refused(E.INVALID_TABLE_EXCEPTION):
            await client.admin.create_table(client.path(name), descriptor())

        assert [] == await client.admin.list_tables(client.database)


async def test_many_tables(connect):
    """All of them are listed and can be opened."""
    async with connect() as client:
        names = [f"t{n:02}" for n in range(30)]
        for name in names:
            await client.admin.create_table(client.path(name), descriptor(bucket_count=2))
        tables = [await client.table(name) for name in names]

        assert names == sorted(await client.admin.list_tables(client.database))
        assert 30 == len({table.get_table_info().table_id for table in tables})


async def test_the_servers_are_listed(connect):
    """The client sees one coordinator and its tablet servers."""
    async with connect() as client:
        nodes = await client.admin.get_server_nodes()

        assert ["CoordinatorServer", "TabletServer"] == sorted({node.server_type for node in nodes})
        assert all(node.port > 0 for node in nodes)


def test_the_fixtures_for_users(fluss_cluster, fluss_database):
    """A test that uses the plugin's fixtures gets an address and a database of its own."""
    assert 1 == fluss_cluster.bootstrap_servers.count(":")
    assert fluss_database.startswith("test_")
