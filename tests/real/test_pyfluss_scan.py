"""The official client's limit scans and filters: the last rows, and only the batches that may match."""

import fluss
import pyarrow as pa
import pytest

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def rows(count, start=0):
    return [{"id": n, "name": f"name {n}"} for n in range(start, start + count)]


async def fill(table, batches, count):
    """Append batches of *count* rows each."""
    writer = table.new_append().create_writer()
    for n in range(batches):
        writer.write_arrow_batch(pa.RecordBatch.from_pylist(rows(count, n * count), schema=SCHEMA))
        await writer.flush()


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 35, 100])
async def test_the_last_rows(connect, limit):
    """As many as were asked for, or as there are."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        await fill(table, 4, 10)
        bucket = fluss.TableBucket(table.get_table_info().table_id, 0)
        scanner = table.new_scan().limit(limit).create_bucket_batch_scanner(bucket)

        assert rows(40)[-limit:] == (await scanner.to_arrow()).to_pylist()


async def test_some_columns_of_the_last_rows(connect):
    """A projection of a limit scan is the client's own."""
    async with connect() as client:
        table = await client.create("t", SCHEMA)
        await fill(table, 2, 3)
        bucket = fluss.TableBucket(table.get_table_info().table_id, 0)
        scanner = table.new_scan().project([1]).limit(2).create_bucket_batch_scanner(bucket)

        assert [{"name": "name 4"}, {"name": "name 5"}] == (await scanner.to_arrow()).to_pylist()


async def test_batches_that_cannot_match_are_not_sent(connect):
    """The client writes statistics of a table that wants them; a filter leaves its other batches out."""
    async with connect() as client:
        table = await client.create("t", SCHEMA, properties={"table.statistics.columns": "*"})
        await fill(table, 20, 10)
        wanted = (fluss.col("id") >= 50) & (fluss.col("id") < 55) | (fluss.col("name") == "name 120")
        scanner = await table.new_scan().filter(wanted).create_record_batch_log_scanner()
        scanner.subscribe(bucket_id=0, start_offset=0)
        found = []
        while not found or found[-1].base_offset < 120:
            found += await scanner.poll_record_batch(1000)
        await fill(table, 1, 60)  # ids from 0 on again: the scanner came to the end, and goes on
        while found[-1].base_offset < 200:
            found += await scanner.poll_record_batch(1000)

        # As texts, `name 120` lies between those of the first batch, of the second, and of the last one.
        assert [0, 10, 50, 120, 200] == [one.base_offset for one in found]
