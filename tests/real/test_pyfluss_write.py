"""The official client appends to log tables, in all the ways that it offers."""

import asyncio
import collections
import datetime as dt
import decimal
import random

import fluss
import pandas as pd
import pyarrow as pa
import pytest

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def rows(count, start=0):
    return [{"id": n, "name": f"name {n}"} for n in range(start, start + count)]


def batch(count, start=0):
    return pa.RecordBatch.from_pylist(rows(count, start), schema=SCHEMA)


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


# ---- what goes wrong -------------------------------------------------------------------------------


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
