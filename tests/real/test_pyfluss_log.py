"""The official client appends to log tables and scans them, in all the ways that it offers."""

import asyncio
import collections
import datetime as dt
import decimal
import random
import time

import fluss
import pandas as pd
import pyarrow as pa
import pytest

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def rows(count, start=0):
    return [{"id": n, "name": f"name {n}"} for n in range(start, start + count)]


def batch(count, start=0):
    return pa.RecordBatch.from_pylist(rows(count, start), schema=SCHEMA)


# ---- writing -------------------------------------------------------------------------------------


async def test_rows(connect, append_rows):
    """Rows as dicts, lists and tuples; a nullable column may be left out."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        await append_rows(table, [{"id": 1, "name": "a"}, [2, "b"], (3, None), {"id": 4}])
        found = await client.arrow(table)

        assert [(1, "a"), (2, "b"), (3, None), (4, None)] == list(
            zip(found["id"].to_pylist(), found["name"].to_pylist(), strict=True)
        )


async def test_arrow_batches_and_tables(connect):
    """Batches and tables of Arrow arrive as they were, in order."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        writer.write_arrow_batch(batch(1000))
        writer.write_arrow(pa.Table.from_batches([batch(10, 1000), batch(20, 1010)]))
        await writer.flush()

        assert rows(1030) == (await client.arrow(table)).to_pylist()


async def test_pandas(connect):
    """A frame goes in, and a frame comes out."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        frame = pd.DataFrame(rows(50))
        writer.write_pandas(frame)
        await writer.flush()
        scanner = await table.new_scan().create_record_batch_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=fluss.EARLIEST_OFFSET)
        found = await scanner.to_pandas()

        assert frame.to_dict("list") == found.to_dict("list")


async def test_waiting_for_one_row(connect):
    """A handle's wait returns once that row can be read."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        for n in range(3):
            handle = writer.append({"id": n, "name": "x"})
            await handle.wait()

            assert {0: n + 1} == await client.ends(table)


SCALARS = {
    "bool": (pa.bool_(), [True, False, None]),
    "int8": (pa.int8(), [-128, 127, None]),
    "int16": (pa.int16(), [-32768, 32767, None]),
    "int32": (pa.int32(), [-(2**31), 2**31 - 1, None]),
    "int64": (pa.int64(), [-(2**63), 2**63 - 1, None]),
    "float32": (pa.float32(), [1.5, -0.0, None]),
    "float64": (pa.float64(), [1e300, -1e-300, None]),
    "string": (pa.string(), ["", "öäü \U0001f980", None]),
    "bytes": (pa.binary(), [b"", b"\0\xff", None]),
    "date": (pa.date32(), [dt.date(1969, 12, 31), dt.date(9999, 12, 31), None]),
    "time": (pa.time32("ms"), [dt.time(0), dt.time(23, 59, 59, 999000), None]),
    "timestamp": (  # without a zone on purpose
        pa.timestamp("us"),
        [dt.datetime(2026, 2, 28, 20, 17, 40, 123456), dt.datetime(1970, 1, 1), None],  # noqa: DTZ001
    ),
    "timestamp_ltz": (
        pa.timestamp("us", tz="UTC"),
        [
            dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
            dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
            None,
        ],
    ),
    "decimal": (pa.decimal128(10, 2), [decimal.Decimal("-12345678.90"), decimal.Decimal("0.00"), None]),
    "decimal_large": (
        pa.decimal128(38, 10),
        [decimal.Decimal("1234567890123456789012345678.0123456789"), decimal.Decimal("-1E-10"), None],
    ),
}


@pytest.mark.parametrize("kind", ["rows", "batch"])
async def test_all_scalar_types(connect, kind, append_rows):
    """Each scalar type keeps its extremes and its nulls, appended by row and by column."""
    schema = pa.schema([(name, kind_) for name, (kind_, _) in SCALARS.items()])
    expected = [{name: values[n] for name, (_, values) in SCALARS.items()} for n in range(3)]
    async with connect() as client:
        table = await client.create("t", schema)
        if kind == "rows":
            await append_rows(table, expected)
        else:
            writer = table.new_append().create_writer()
            writer.write_arrow_batch(pa.RecordBatch.from_pylist(expected, schema=schema))
            await writer.flush()
        found = await client.arrow(table)

        assert expected == found.to_pylist()


async def test_nested_types(connect, append_rows):
    """Arrays, maps and rows, also within each other, with nulls and empty ones."""
    schema = pa.schema(
        [
            ("tags", pa.list_(pa.string())),
            ("counts", pa.map_(pa.string(), pa.int64())),
            ("who", pa.struct([("age", pa.int32()), ("names", pa.list_(pa.string()))])),
            ("deep", pa.list_(pa.list_(pa.struct([("x", pa.int32())])))),
        ]
    )
    expected = [
        {
            "tags": ["a", None, "b"],
            "counts": [("one", 1), ("none", None)],
            "who": {"age": 3, "names": ["x"]},
            "deep": [[{"x": 1}], [], [{"x": None}]],
        },
        {"tags": [], "counts": [], "who": {"age": None, "names": []}, "deep": []},
        {"tags": None, "counts": None, "who": None, "deep": None},
    ]
    async with connect() as client:
        table = await client.create("t", schema)
        await append_rows(table, expected)
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=0)
        records = await client.records(scanner, 3)

        assert expected == [record.row for record in records]
        assert expected == (await client.arrow(table)).to_pylist()


@pytest.mark.parametrize("acks", ["0", "1", "all"])
async def test_acks(connect, acks, append_rows):
    """Every level of acknowledgement writes."""
    async with connect(config={"writer.acks": acks, "writer.enable-idempotence": "false"}) as client:
        table = await client.create("t", SCHEMA)
        await append_rows(table, rows(100))
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=0)

        assert list(range(100)) == [record.row["id"] for record in await client.records(scanner, 100)]


@pytest.mark.parametrize("compression", ["NONE", "LZ4_FRAME", "ZSTD"])
async def test_compressed_batches(connect, compression):
    """What the client compresses comes back."""
    async with connect() as client:
        table = await client.create(
            "t", SCHEMA, properties={"table.log.arrow.compression.type": compression}
        )
        writer = table.new_append().create_writer()
        writer.write_arrow_batch(batch(5000))
        await writer.flush()

        assert rows(5000) == (await client.arrow(table)).to_pylist()


async def test_large_batches(connect):
    """Requests of several MiB, and fetches far above a bucket's share."""
    schema = pa.schema([("n", pa.int32()), ("data", pa.binary())])
    async with connect() as client:
        table = await client.create("t", schema, properties={"table.log.arrow.compression.type": "NONE"})
        writer = table.new_append().create_writer()
        payload = random.Random(4).randbytes(1000)
        for n in range(6):
            ids = pa.array(range(n * 5000, (n + 1) * 5000), pa.int32())
            data = pa.array([payload] * 5000, pa.binary())
            writer.write_arrow_batch(pa.RecordBatch.from_arrays([ids, data], schema=schema))
        await writer.flush()
        found = await client.arrow(table)

        assert list(range(30_000)) == found["n"].to_pylist()
        assert {payload} == set(found["data"].to_pylist())


async def test_two_writers(connect, append_rows):
    """Two clients append at the same time: each keeps its order, and nothing is lost or doubled."""
    async with connect() as one, connect(database=one.database) as other:
        table = await one.create("t", SCHEMA)

        async def write(client, name):
            mine = await client.table("t")
            for start in range(0, 300, 50):
                await append_rows(mine, [{"id": n, "name": name} for n in range(start, start + 50)])

        await asyncio.gather(write(one, "one"), write(other, "other"))
        found = (await one.arrow(table)).to_pylist()
        by_writer = collections.defaultdict(list)
        for row in found:
            by_writer[row["name"]].append(row["id"])

        assert {"one": list(range(300)), "other": list(range(300))} == by_writer


# ---- reading -------------------------------------------------------------------------------------


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


async def test_a_drop_during_writes(connect):
    """A writer of a table that is dropped is told so."""
    async with connect() as client, connect(database=client.database) as other:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        await writer.append({"id": 1, "name": "x"}).wait()
        await other.admin.drop_table(client.path("t"))

        async def write_on():
            for n in range(100):
                await asyncio.wait_for(writer.append({"id": n, "name": "y"}).wait(), 20)
                await asyncio.sleep(0.05)

        with pytest.raises(fluss.FlussError):
            await write_on()


async def test_rows_that_do_not_fit(connect, append_rows):
    """A row of the wrong shape is refused by the client, and the next one is written."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        writer = table.new_append().create_writer()
        with pytest.raises((fluss.FlussError, TypeError, ValueError)):
            await writer.append({"id": "not a number", "name": "x"}).wait()
        await append_rows(table, rows(1))

        assert rows(1) == (await client.arrow(table)).to_pylist()
