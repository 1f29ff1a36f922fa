"""The official client drives primary-key tables: upserts, deletes, lookups, scans, and what survives."""

import asyncio
import random

import fluss
import pyarrow as pa
import pytest

import flussd.testing

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string()), pa.field("n", pa.int32())])


def row(n, name="x"):
    return {"id": n, "name": name, "n": n % 7}


async def create(client, name="t", *, schema=SCHEMA, keys=("id",), **more):
    return await client.create(name, schema, primary_keys=list(keys), **more)


async def upsert(table, *rows):
    """Upsert rows, and wait until all of them are acknowledged."""
    writer = table.new_upsert().create_writer()
    for one in rows:
        writer.upsert(one)
    await writer.flush()


async def look_up(table, *keys):
    """Look keys up at once, each by a lookuper of its own: one does a lookup every 100 ms."""
    lookupers = [table.new_lookup().create_lookuper() for _ in keys]
    pairs = zip(keys, lookupers, strict=True)
    return await asyncio.gather(*(lookuper.lookup({"id": key}) for key, lookuper in pairs))


async def changes(table, count):
    """The first *count* changes of bucket 0, with their offsets."""
    scanner = await table.new_scan().create_log_scanner()
    scanner.subscribe(bucket_id=0, start_offset=fluss.EARLIEST_OFFSET)
    found = []
    while len(found) < count:
        found += list(await scanner.poll(5000))
    return [(one.offset, one.change_type.short_string(), one.row) for one in found]


async def test_upserts_deletes_and_lookups(connect):
    """Rows are there when their write is acknowledged, and gone when their delete is."""
    async with connect() as client:
        table = await create(client)
        await upsert(table, row(1, "a"), row(2, "b"), row(1, "c"))
        before = await look_up(table, 1, 2, 3)
        writer = table.new_upsert().create_writer()
        writer.delete({"id": 1})
        await writer.flush()

        assert [row(1, "c"), row(2, "b"), None] == before
        assert [None, row(2, "b")] == await look_up(table, 1, 2)


async def test_the_changelog(connect):
    """A log scanner sees inserts, both images of updates, and deletes."""
    async with connect() as client:
        table = await create(client, buckets=1)
        await upsert(table, row(1, "a"))
        await upsert(table, row(1, "b"))
        writer = table.new_upsert().create_writer()
        writer.delete({"id": 1})
        await writer.flush()

        expected = [
            (0, "+I", row(1, "a")),
            (1, "-U", row(1, "a")),
            (2, "+U", row(1, "b")),
            (3, "-D", row(1, "b")),
        ]
        assert expected == await changes(table, 4)


async def test_partial_updates(connect):
    """Columns that are not named keep their values; of a new row they are null."""
    async with connect() as client:
        table = await create(client)
        await upsert(table, row(1, "a"))
        writer = table.new_upsert().partial_update_by_name(["id", "name"]).create_writer()
        writer.upsert({"id": 1, "name": "b"})
        writer.upsert({"id": 2, "name": "c"})
        await writer.flush()

        assert [row(1, "b"), {"id": 2, "name": "c", "n": None}] == await look_up(table, 1, 2)


async def test_prefix_lookups(connect):
    """All rows whose key begins with the bucket key."""
    schema = pa.schema([("a", pa.string()), ("b", pa.int32()), ("v", pa.string())])
    async with connect() as client:
        table = await create(client, schema=schema, keys=("a", "b"), bucket_keys=["a"], buckets=3)
        rows = [{"a": a, "b": b, "v": f"{a}{b}"} for a in ("x", "y", "xx") for b in range(5)]
        await upsert(table, *rows)
        lookuper = table.new_lookup().lookup_by(["a"]).create_lookuper()
        found = {a: await lookuper.lookup({"a": a}) for a in ("x", "y", "xx", "z")}

        for a in ("x", "y", "xx", "z"):
            assert [one for one in rows if one["a"] == a] == sorted(found[a], key=lambda one: one["b"])


async def test_a_limit_scan(connect):
    """The first rows of a bucket, in the order of their keys."""
    async with connect() as client:
        table = await create(client, buckets=1)
        await upsert(table, *(row(n) for n in range(30)))
        bucket = fluss.TableBucket(table.get_table_info().table_id, 0)
        scanner = table.new_scan().limit(10).create_bucket_batch_scanner(bucket)
        found = (await scanner.to_arrow()).to_pylist()

        assert 10 == len(found)
        assert all(row(one["id"]) == one for one in found)


async def test_a_partitioned_table(connect):
    """Each partition has rows of its own under one key."""
    schema = pa.schema([("id", pa.int32()), ("day", pa.string()), ("v", pa.string())])
    async with connect() as client:
        table = await create(client, schema=schema, keys=("id", "day"), partition_keys=["day"], buckets=1)
        for day in ("1", "2"):
            await client.admin.create_partition(client.path("t"), {"day": day})
        rows = [{"id": n, "day": day, "v": f"{day}-{n}"} for n in range(5) for day in ("1", "2")]
        await upsert(table, *rows)
        lookuper = table.new_lookup().create_lookuper()
        found = [await lookuper.lookup({"id": one["id"], "day": one["day"]}) for one in rows]

        assert rows == found
        assert await lookuper.lookup({"id": 9, "day": "1"}) is None


async def test_a_compacted_changelog(connect):
    """Rows are the same in the other format that the client reads."""
    async with connect() as client:
        table = await create(client, properties={"table.log.format": "COMPACTED"}, buckets=1)
        await upsert(table, *(row(n, "a") for n in range(10)))
        await upsert(table, *(row(n, "b") for n in range(10)))

        assert [row(n, "b") for n in range(10)] == await look_up(table, *range(10))


async def test_many_rows(connect):
    """More than one batch, over several buckets, upserted twice."""
    async with connect() as client:
        table = await create(client, buckets=4)
        await upsert(table, *(row(n, "a") for n in range(5000)))
        await upsert(table, *(row(n, "b") for n in range(0, 5000, 2)))
        keys = random.Random(1).sample(range(5000), 200)

        assert [row(n, "a" if n % 2 else "b") for n in keys] == await look_up(table, *keys)


# ---- what survives -------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["orderly", "killed"])
async def test_a_restart(start_flussd, connect, tmp_path, ends):
    """Every acknowledged row is there, and writing goes on."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path, "-D", "log.segment.file-size=4kb")
    async with connect(server.bootstrap_servers, "db") as client:
        table = await create(client, buckets=2)
        for turn in range(5):
            await upsert(table, *(row(n, str(turn)) for n in range(turn, 40)))
        writer = table.new_upsert().create_writer()
        writer.delete({"id": 20})
        await writer.flush()
    server.kill() if ends == "killed" else server.stop()
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.table("t")
        found = await look_up(table, *range(40))
        await upsert(table, row(20, "new"))

        assert [None if n == 20 else row(n, str(min(n, 4))) for n in range(40)] == found
        assert [row(20, "new")] == await look_up(table, 20)


async def test_kill_9_at_any_moment(start_flussd, connect, tmp_path, port):
    """A writer lives through it; what was acknowledged before is there, with that value or a later one."""
    arguments = ("--port", port, "--data-dir", tmp_path)
    server = start_flussd(*arguments)
    acknowledged = {}

    async def write(table):
        writer = table.new_upsert().create_writer()
        for n in range(1_000_000):
            await writer.upsert(row(n % 20, str(n))).wait()
            acknowledged[n % 20] = n

    async with connect(server.bootstrap_servers, "db") as client:
        table = await create(client, buckets=2)
        writing = asyncio.ensure_future(write(table))
        for _ in range(3):
            before = len(acknowledged)
            while len(acknowledged) < min(20, before + 5):
                await asyncio.sleep(0.05)
            await asyncio.sleep(random.uniform(0, 0.2))
            server.kill()
            told = dict(acknowledged)
            server = await asyncio.to_thread(start_flussd, *arguments)
            async with connect(server.bootstrap_servers, "db") as other:
                found = await look_up(await other.table("t"), *told)
            for (key, n), one in zip(told.items(), found, strict=True):
                assert one is not None, key
                assert int(one["name"]) >= n
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_a_client_that_stays(connect, tmp_path):
    """A restart of the servers under a client that writes, and looks up."""
    with flussd.testing.cluster(data_dir=tmp_path) as cluster:
        async with connect(cluster.bootstrap_servers, "db") as client:
            table = await create(client, buckets=2)
            for turn in range(3):
                await upsert(table, *(row(n, str(turn)) for n in range(20)))
                await asyncio.to_thread(cluster.restart)
        async with connect(cluster.bootstrap_servers, "db") as client:
            found = await look_up(await client.table("t"), *range(20))

    assert [row(n, "2") for n in range(20)] == found
