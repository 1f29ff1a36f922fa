"""What survives: orderly restarts, kill -9 at any moment, files with torn and damaged tails."""

import asyncio
import random
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

import flussd.testing

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def batch(start, count):
    ids = range(start, start + count)
    return pa.RecordBatch.from_pylist([{"id": n, "name": f"name {n}"} for n in ids], schema=SCHEMA)


def log_files(folder: Path):
    """The segments of all buckets, with something in them."""
    return sorted(path for path in folder.glob("tablet-*/**/*.log") if path.stat().st_size)


async def write_batches(table, first, count, size=10):
    """Append *count* batches of *size* rows, each acknowledged before the next."""
    writer = table.new_append().create_writer()
    for n in range(first, first + count):
        writer.write_arrow_batch(batch(n * size, size))
        await writer.flush()


# ---- orderly restarts ----------------------------------------------------------------------------


async def test_an_orderly_restart(start_flussd, connect, tmp_path):
    """Databases, tables, ids, offsets and rows are as they were, and writing goes on."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers, "db") as client:
        await client.create("empty", SCHEMA, buckets=3)
        table = await client.create("t", SCHEMA, comment="kept")
        await write_batches(table, 0, 10)
        before = table.get_table_info()
    assert 0 == server.stop()[0]

    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers, "db") as client:
        tables = sorted(await client.admin.list_tables("db"))
        table = await client.table("t")
        ends = await client.ends(table)
        await write_batches(table, 10, 5)
        ids = (await client.arrow(table))["id"].to_pylist()
        newer = await client.create("newer", SCHEMA)

        assert ["empty", "t"] == tables
        assert {0: 100} == ends
        assert list(range(150)) == ids
        assert (before.table_id, "kept") == (
            table.get_table_info().table_id,
            table.get_table_info().comment,
        )
        assert newer.get_table_info().table_id > before.table_id


async def test_many_restarts_in_process(connect, tmp_path):
    """The cluster of the test fixture restarts on its data and ports, under a client that stays."""
    with flussd.testing.cluster(data_dir=tmp_path, tablets=2) as cluster:
        async with connect(cluster.bootstrap_servers, "db") as client:
            table = await client.create("t", SCHEMA, buckets=2)
            for n in range(4):
                await write_batches(table, n * 3, 3)
                await asyncio.to_thread(cluster.restart)

        async with connect(cluster.bootstrap_servers, "db") as client:
            table = await client.table("t")
            ids = (await client.arrow(table))["id"].to_pylist()

    assert list(range(120)) == sorted(ids)


async def test_several_tablet_servers(start_flussd, connect, tmp_path):
    """Buckets are spread over the servers, and found again after a restart on other ports."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path, "--tablets", 3)
    async with connect(server.bootstrap_servers, "db") as client:
        nodes = await client.admin.get_server_nodes()
        table = await client.create("t", SCHEMA, buckets=6)
        await write_batches(table, 0, 30)
    server.stop()
    folders = {path.relative_to(tmp_path).parts[0] for path in log_files(tmp_path)}
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers, "db") as client:
        ids = (await client.arrow(await client.table("t")))["id"].to_pylist()

    assert 3 == sum(node.server_type == "TabletServer" for node in nodes)
    assert {"tablet-0", "tablet-1", "tablet-2"} == folders
    assert list(range(300)) == sorted(ids)


@pytest.mark.parametrize("durability", ["page_cache", "group_fsync"])
async def test_small_segments(start_flussd, connect, tmp_path, durability):
    """Many rolled segments are read across, before and after a kill."""
    options = ("-D", "log.segment.file-size=4kb", "-D", f"log.durability={durability}")
    server = start_flussd("--port", 0, "--data-dir", tmp_path, *options)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.create("t", SCHEMA)
        await write_batches(table, 0, 60)
        before = (await client.arrow(table))["id"].to_pylist()
    server.kill()
    segments = log_files(tmp_path)
    server = start_flussd("--port", 0, "--data-dir", tmp_path, *options)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.table("t")
        after = (await client.arrow(table))["id"].to_pylist()
        middle = (await client.arrow(table, 333))["id"].to_pylist()

    assert len(segments) > 3
    assert list(range(600)) == before == after
    assert list(range(333, 600)) == middle


# ---- kill -9 -------------------------------------------------------------------------------------


async def acknowledged(writer, ids, limit=256):
    """Append rows one by one, *limit* in flight; return the ids that were acknowledged."""
    acked = []
    slots = asyncio.Semaphore(limit)

    async def one(n):
        async with slots:
            await writer.append({"id": n, "name": "x"}).wait()
            acked.append(n)

    await asyncio.gather(*(one(n) for n in ids))
    return acked


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_writer_lives_through_restarts(start_flussd, connect, tmp_path, port, number):
    """An idempotent writer goes on by itself over three ends of the server: each row once, in order."""
    arguments = ("--port", port, "--data-dir", tmp_path)
    server = start_flussd(*arguments)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        total = 6000
        writing = asyncio.ensure_future(acknowledged(writer, range(total)))
        for _ in range(3):
            await asyncio.sleep(0.3)
            server.process.send_signal(number)
            await asyncio.to_thread(server.process.wait)
            server = await asyncio.to_thread(start_flussd, *arguments)
        acked = await asyncio.wait_for(writing, 45)
        ids = (await client.arrow(table))["id"].to_pylist()

    assert list(range(total)) == sorted(acked)
    assert list(range(total)) == ids


@pytest.mark.parametrize("seed", range(4))
async def test_acknowledged_rows_survive_a_kill(start_flussd, connect, tmp_path, port, seed):
    """Killed at a random moment under load: what was acknowledged is there, all once, in order."""
    draw = random.Random(seed)
    arguments = ("--port", port, "--data-dir", tmp_path)
    server = start_flussd(*arguments)
    acked_batch_count = 0
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()

        async def write():
            nonlocal acked_batch_count
            for n in range(100_000):
                await writer.write_arrow_batch(batch(n * 10, 10)).wait()
                acked_batch_count = n + 1

        writing = asyncio.ensure_future(write())
        while not acked_batch_count:
            await asyncio.sleep(0.01)
        await asyncio.sleep(draw.uniform(0, 0.5))
        server.kill()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        server = start_flussd(*arguments)  # the client waits for it to close its last batch
        async with connect(server.bootstrap_servers, "db") as other:
            ids = (await other.arrow(await other.table("t")))["id"].to_pylist()

    assert acked_batch_count > 0
    assert len(ids) >= acked_batch_count * 10
    assert list(range(len(ids))) == ids


async def test_metadata_survives_a_kill(start_flussd, connect, tmp_path):
    """Created and dropped tables are as they were acknowledged, after each of several kills."""
    expected = set()
    for n in range(4):
        server = start_flussd("--port", 0, "--data-dir", tmp_path)
        async with connect(server.bootstrap_servers, "db") as client:
            found = set(await client.admin.list_tables("db"))
            assert expected == found
            await client.create(f"t{n}", SCHEMA)
            expected.add(f"t{n}")
            if n:
                await client.admin.drop_table(client.path(f"t{n - 1}"))
                expected.remove(f"t{n - 1}")
        server.kill()


async def test_a_reader_lives_through_a_restart(start_flussd, connect, tmp_path, port):
    """A scanner goes on where it was, on the server that comes back."""
    arguments = ("--port", port, "--data-dir", tmp_path)
    server = start_flussd(*arguments)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.create("t", SCHEMA)
        await write_batches(table, 0, 5)
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=0)
        first = await client.records(scanner, 50)
        server.kill()
        server = start_flussd(*arguments)
        await write_batches(table, 5, 5)
        second = await client.records(scanner, 50)

    assert list(range(100)) == [record.row["id"] for record in first + second]


# ---- damaged files -------------------------------------------------------------------------------


def cut(path, draw, stable_bytes):
    """Cut the file somewhere in its tail."""
    with path.open("r+b") as file:
        file.truncate(draw.randrange(stable_bytes, path.stat().st_size))


def flip(path, draw, stable_bytes):
    """Change one bit somewhere in its tail."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(stable_bytes, len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def garble(path, draw, stable_bytes):
    """Overwrite a piece of its tail with noise."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(stable_bytes, len(data))
    data[at : at + 64] = draw.randbytes(min(64, len(data) - at))
    path.write_bytes(data)


def zero(path, draw, stable_bytes):
    """Let its tail be zeros, as a file system may after a power cut."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(stable_bytes, len(data))
    data[at:] = bytes(len(data) - at)
    path.write_bytes(data)


def lengthen(path, draw, stable_bytes):
    """Append noise."""
    with path.open("ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 500)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("damage", [cut, flip, garble, zero, lengthen])
async def test_a_damaged_tail(start_flussd, connect, tmp_path, damage, seed):
    """Whatever was done to the tail: what is served is a whole-batch prefix, and writing goes on.

    The process was killed, so no orderly stop vouches for the files.
    """
    draw = random.Random(f"{damage.__name__} {seed}")
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers, "db") as client:
        await write_batches(await client.create("t", SCHEMA), 0, 20)
    server.kill()
    (path,) = log_files(tmp_path)
    damage(path, draw, path.stat().st_size // 4)

    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.table("t")
        ids = (await client.arrow(table))["id"].to_pylist()
        ends = await client.ends(table)
        await write_batches(table, 100, 1)
        after = (await client.arrow(table))["id"].to_pylist()
    status, _, err = server.stop()

    assert list(range(len(ids))) == ids
    assert 0 == len(ids) % 10
    assert {0: len(ids)} == ends
    assert ids + list(range(1000, 1010)) == after
    assert (200 if damage is lengthen else 40) <= len(ids) <= 200
    assert 0 == status
    cut = 0 < len(ids) < 200 or damage is lengthen
    assert all("bucket cut" in line for line in err.splitlines())
    assert cut == bool(err)


async def test_the_damage_may_come_again(start_flussd, connect, tmp_path):
    """Cut, write, kill, cut again: each time a prefix of what was there, and never an old batch again."""
    draw = random.Random(9)
    expected = []
    for n in range(5):
        server = start_flussd("--port", 0, "--data-dir", tmp_path)
        async with connect(server.bootstrap_servers, "db") as client:
            if n == 0:
                await client.create("t", SCHEMA)
            table = await client.table("t")
            ids = (await client.arrow(table))["id"].to_pylist()
            assert expected[: len(ids)] == ids
            await write_batches(table, n * 100, 10)
            expected = ids + list(range(n * 1000, n * 1000 + 100))
            assert expected == (await client.arrow(table))["id"].to_pylist()
        server.kill()
        path = log_files(tmp_path)[-1]
        cut(path, draw, path.stat().st_size * 3 // 4)


def test_the_fixture_starts_fast_and_stops_clean(tmp_path):
    """The in-process cluster is up in tens of milliseconds once loaded, and leaves no thread."""
    with flussd.testing.cluster():
        pass
    before = threading.active_count()
    begun = time.monotonic()
    with flussd.testing.cluster(tablets=2, data_dir=tmp_path) as cluster:
        ready_ms = (time.monotonic() - begun) * 1000
        addresses = {cluster.bootstrap_servers, *cluster.tablet_addresses}

    assert 3 == len(addresses)
    assert before == threading.active_count()
    assert ready_ms < 500
