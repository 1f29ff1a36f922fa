"""The official client scans log tables, in all the ways that it offers."""

import asyncio
import collections
import time

import fluss
import pyarrow as pa
import pytest

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def rows(count, start=0):
    return [{"id": n, "name": f"name {n}"} for n in range(start, start + count)]


def batch(count, start=0):
    return pa.RecordBatch.from_pylist(rows(count, start), schema=SCHEMA)


async def test_records_have_offsets_and_times(connect, append_rows):
    """Offsets count from 0 without gaps; timestamps are the server's and run forward."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        begun_ms = int(time.time() * 1000)
        await append_rows(table, rows(10))
        await append_rows(table, rows(10, 10))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=fluss.EARLIEST_OFFSET)
        records = await client.records(scanner, 20)
        times_ms = [record.timestamp for record in records]

        assert list(range(20)) == [record.offset for record in records]
        assert all(fluss.ChangeType.AppendOnly == record.change_type for record in records)
        assert times_ms == sorted(times_ms)
        assert begun_ms - 1000 <= times_ms[0] <= times_ms[-1] <= int(time.time() * 1000) + 1000


async def test_batches_have_offsets(connect):
    """A batch says where it begins and ends."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        for start in (0, 7):
            writer.write_arrow_batch(batch(7, start))
            await writer.flush()
        scanner = await table.new_scan().create_record_batch_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=0)
        found = []
        while sum(one.batch.num_rows for one in found) < 14:
            found += await scanner.poll_record_batch(1000)

        assert 0 == found[0].base_offset
        assert 13 == found[-1].last_offset
        assert all(one.last_offset - one.base_offset + 1 == one.batch.num_rows for one in found)
        assert {fluss.TableBucket(table.get_table_info().table_id, 0)} == {one.bucket for one in found}


@pytest.mark.parametrize("start", [0, 1, 49, 50, 51, 99])
async def test_scans_from_an_offset(connect, start):
    """A scan begins at the very row, also in the middle of a batch."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        for first in (0, 50):
            writer.write_arrow_batch(batch(50, first))
            await writer.flush()

        assert rows(100 - start, start) == (await client.arrow(table, start)).to_pylist()


async def test_an_offset_beyond_the_end(connect, append_rows):
    """A scan from where nothing can be is refused, not silent."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        await append_rows(table, rows(5))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=1000)
        with pytest.raises(fluss.FlussError, match="1000 is out of range"):
            await client.records(scanner, 1)


async def test_offsets_by_kind(connect, append_rows):
    """Earliest, latest, and the first one at or after a time."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        spec = fluss.OffsetSpec
        empty = [await client.ends(table, one) for one in (spec.earliest(), spec.latest())]
        await append_rows(table, rows(10))
        await asyncio.sleep(0.05)
        between_ms = int(time.time() * 1000)
        await asyncio.sleep(0.05)
        await append_rows(table, rows(10, 10))

        assert [{0: 0}, {0: 0}] == empty
        assert {0: 0} == await client.ends(table, spec.earliest())
        assert {0: 20} == await client.ends(table, spec.latest())
        assert {0: 10} == await client.ends(table, spec.timestamp(between_ms))
        assert {0: 0} == await client.ends(table, spec.timestamp(1))


async def test_a_scan_from_a_time(connect, append_rows):
    """Offsets of a time are where a scan of what came since begins."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        await append_rows(table, rows(10))
        await asyncio.sleep(0.02)
        since_ms = int(time.time() * 1000)
        await asyncio.sleep(0.02)
        await append_rows(table, rows(5, 10))
        start = await client.ends(table, fluss.OffsetSpec.timestamp(since_ms))

        assert rows(5, 10) == (await client.arrow(table, start[0])).to_pylist()


async def test_offsets_of_a_bad_bucket(connect):
    """A bucket that the table does not have is refused."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        with pytest.raises(fluss.FlussError):
            await client.admin.list_offsets(table.get_table_path(), [7], fluss.OffsetSpec.latest())


async def test_a_reader_at_the_tail_is_woken(connect, append_rows):
    """A waiting reader gets a row when it is appended, not when its wait ends."""
    async with connect() as reader, connect(database=reader.database) as writer_client:
        table = await reader.create("t", SCHEMA)
        await append_rows(table, rows(3))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=(await reader.ends(table))[0])
        silent = await scanner.poll(200)
        writer = (await writer_client.table("t")).new_append().create_writer()
        waits_ms = []
        for n in range(5):
            waiting = asyncio.ensure_future(scanner.poll(10_000))
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            writer.append({"id": n, "name": "now"})
            await writer.flush()
            records = list(await waiting)
            waits_ms.append((time.monotonic() - begun) * 1000)
            assert [n] == [record.row["id"] for record in records]

        assert silent.is_empty()
        assert min(waits_ms) < 200, "a fetch that is not woken ends after 500 ms"


async def test_a_bounded_reader_is_lazy(connect):
    """An Arrow reader ends at the ends that were there when it began."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        for start in range(0, 1000, 100):
            writer.write_arrow_batch(batch(100, start))
            await writer.flush()
        scanner = await table.new_scan().create_record_batch_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=fluss.EARLIEST_OFFSET)
        found = await asyncio.to_thread(lambda: scanner.to_arrow_batch_reader().read_all())

        assert list(range(1000)) == found["id"].to_pylist()


async def test_an_empty_table(connect):
    """A bounded scan of nothing is an empty table with the schema; a poll is empty after its time."""
    async with connect() as client:
        table = await client.create("t", SCHEMA, buckets=3)
        found = await client.arrow(table)
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=fluss.EARLIEST_OFFSET)
        begun = time.monotonic()
        polled = await scanner.poll(300)

        assert (0, ["id", "name"]) == (found.num_rows, found.column_names)
        assert polled.is_empty()
        assert 0.2 < time.monotonic() - begun < 5


async def test_several_buckets(connect, append_rows):
    """Every row is in one bucket; each bucket has its own offsets without gaps, and its order."""
    async with connect() as client:
        table = await client.create("t", SCHEMA, buckets=4)
        for start in range(0, 400, 20):
            await append_rows(table, rows(20, start))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe_buckets(dict.fromkeys(range(4), fluss.EARLIEST_OFFSET))
        found = collections.defaultdict(list)
        deadline = time.monotonic() + 15
        while sum(map(len, found.values())) < 400 and time.monotonic() < deadline:
            for bucket, records in (await scanner.poll(500)).items():
                found[bucket.bucket_id] += records
        ends = await client.ends(table)

        assert list(range(400)) == sorted(record.row["id"] for one in found.values() for record in one)
        for bucket, records in found.items():
            assert list(range(ends[bucket])) == [record.offset for record in records]
            ids = [record.row["id"] for record in records]
            assert ids == sorted(ids)


async def test_bucket_keys(connect, append_rows):
    """Rows with the same bucket key are in the same bucket, in the order in which they were appended."""
    async with connect() as client:
        table = await client.create("t", SCHEMA, buckets=3, bucket_keys=["id"])
        await append_rows(table, [{"id": n % 10, "name": str(n)} for n in range(200)])
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe_buckets(dict.fromkeys(range(3), fluss.EARLIEST_OFFSET))
        place = collections.defaultdict(set)
        order = collections.defaultdict(list)
        deadline = time.monotonic() + 15
        while sum(map(len, order.values())) < 200 and time.monotonic() < deadline:
            for bucket, records in (await scanner.poll(500)).items():
                for record in records:
                    place[record.row["id"]].add(bucket.bucket_id)
                    order[record.row["id"]].append(int(record.row["name"]))

        assert {1} == {len(buckets) for buckets in place.values()}
        assert {key: list(range(key, 200, 10)) for key in range(10)} == order


async def test_unsubscribe(connect, append_rows):
    """A bucket that was given up brings no more rows; others do."""
    async with connect() as client:
        table = await client.create("t", SCHEMA, buckets=2, bucket_keys=["id"])
        await append_rows(table, rows(50))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe_buckets({0: 0, 1: 0})
        await client.records(scanner, 50)
        scanner.unsubscribe(0)
        await append_rows(table, rows(50, 50))
        ends = await client.ends(table)
        found = []
        for _ in range(6):
            found += (await scanner.poll(300)).buckets()

        assert ends[0] > 0
        assert {1} == {bucket.bucket_id for bucket in found}


async def test_projection(connect, append_rows):
    """A scan brings the columns that it asked for, in its order."""
    schema = pa.schema(
        [("a", pa.int32()), ("b", pa.string()), ("c", pa.list_(pa.int32())), ("d", pa.int64())]
    )
    async with connect() as client:
        table = await client.create("t", schema)
        expected = [{"a": n, "b": str(n), "c": [n] * (n % 3), "d": -n} for n in range(100)]
        await append_rows(table, expected)
        by_name = await client.arrow(table, scan=table.new_scan().project_by_name(["d", "b"]))
        by_index = await client.arrow(table, scan=table.new_scan().project([2]))

        assert [{"d": row["d"], "b": row["b"]} for row in expected] == by_name.to_pylist()
        assert [{"c": row["c"]} for row in expected] == by_index.to_pylist()


async def test_two_readers(connect, append_rows):
    """Readers do not disturb each other."""
    async with connect() as one, connect(database=one.database) as other:
        table = await one.create("t", SCHEMA)
        await append_rows(table, rows(200))

        async def read(client):
            scanner = await (await client.table("t")).new_scan().create_log_scanner()
            scanner.subscribe(bucket_id=0, start_offset=0)
            return [record.row["id"] for record in await client.records(scanner, 200)]

        found = await asyncio.gather(read(one), read(other), read(one))

        assert [list(range(200))] * 3 == found


async def test_many_parked_readers(connect, append_rows):
    """Fifty readers of one connection wait at the tail, and writes on it go on meanwhile."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        scanners = []
        for _ in range(50):
            scanner = await table.new_scan().create_log_scanner()
            scanner.subscribe(bucket_id=0, start_offset=0)
            scanners.append(scanner)
        polls = [asyncio.ensure_future(client.records(scanner, 10)) for scanner in scanners]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await append_rows(table, rows(10))
        found = await asyncio.gather(*polls)

        assert [list(range(10))] * 50 == [[record.row["id"] for record in one] for one in found]
        assert time.monotonic() - begun < 5


# ---- what goes wrong -----------------------------------------------------------------------------


async def test_a_drop_during_a_scan(connect, append_rows):
    """A reader of a table that is dropped is told or gets nothing, and does not hang; the name is free."""
    async with connect() as client, connect(database=client.database) as other:
        table = await client.create("t", SCHEMA)
        await append_rows(table, rows(5))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=0)
        await client.records(scanner, 5)
        polling = asyncio.ensure_future(scanner.poll(3000))
        await asyncio.sleep(0.1)
        await other.admin.drop_table(client.path("t"))
        try:
            after = list(await asyncio.wait_for(polling, 20))
        except fluss.FlussError:
            after = []
        fresh = await other.create("t", SCHEMA)
        await append_rows(fresh, rows(2, 100))

        assert [] == after
        assert rows(2, 100) == (await other.arrow(fresh)).to_pylist()
