"""The official client drives partitioned tables: made, written, read, dropped, and made by themselves."""

import asyncio
import datetime as dt

import fluss
import pyarrow as pa
import pytest

from flussd.runtime_real.zones import system_zones

E = fluss.ErrorCode

SCHEMA = pa.schema(
    [pa.field("id", pa.int32()), pa.field("day", pa.string()), pa.field("zone", pa.string())]
)


async def create(client, *keys, buckets=1, zone=None):
    """Create a table with partition keys and return it; with a *zone* it makes its own partitions."""
    options = {"table.auto-partition.enabled": "true", "table.auto-partition.time-zone": zone}
    return await client.create(
        "t",
        SCHEMA,
        buckets=buckets,
        partition_keys=list(keys or ("day",)),
        properties=options if zone else {},
    )


async def listed(client, spec=None):
    """The partitions of the table: name -> id."""
    infos = await client.admin.list_partition_infos(client.path("t"), spec)
    return {info.partition_name: info.partition_id for info in infos}


async def ends(client, name, buckets=1):
    return await client.admin.list_partition_offsets(
        client.path("t"), name, list(range(buckets)), fluss.OffsetSpec.latest()
    )


async def read(table, starts):
    """All rows of (partition id, bucket) from the given offsets on, as sorted tuples."""
    scanner = await table.new_scan().create_record_batch_log_scanner()
    scanner.subscribe_partition_buckets(starts)
    rows = (await scanner.to_arrow()).to_pylist()
    return sorted((row["id"], row["day"], row["zone"]) for row in rows)


async def refused(code, call):
    with pytest.raises(fluss.FlussError) as caught:
        await call

    assert code == caught.value.error_code, str(caught.value)


async def test_partitions_come_and_go(connect):
    """Created, listed by a part of the spec, refused twice, dropped."""
    async with connect() as client:
        await create(client, "day", "zone")
        admin, path = client.admin, client.path("t")
        for day, zone in (("1", "eu"), ("1", "us"), ("2", "eu")):
            await admin.create_partition(path, {"zone": zone, "day": day})
        all_of_them = await listed(client)
        await refused(E.PARTITION_ALREADY_EXISTS, admin.create_partition(path, {"day": "1", "zone": "eu"}))
        await admin.create_partition(path, {"day": "1", "zone": "eu"}, ignore_if_exists=True)
        await refused(E.PARTITION_SPEC_INVALID_EXCEPTION, admin.create_partition(path, {"day": "1"}))
        in_eu = await listed(client, {"zone": "eu"})
        await admin.drop_partition(path, {"day": "1", "zone": "eu"})
        await refused(E.PARTITION_NOT_EXISTS, admin.drop_partition(path, {"day": "1", "zone": "eu"}))
        await admin.drop_partition(path, {"day": "1", "zone": "eu"}, ignore_if_not_exists=True)

        assert {"1$eu", "1$us", "2$eu"} == set(all_of_them)
        assert {"1$eu", "2$eu"} == set(in_eu)
        assert {"1$us", "2$eu"} == set(await listed(client))


async def test_a_table_without_partitions(connect):
    """Partition calls are refused with 37."""
    async with connect() as client:
        await client.create("t", SCHEMA)
        await refused(
            E.TABLE_NOT_PARTITIONED_EXCEPTION,
            client.admin.create_partition(client.path("t"), {"day": "1"}),
        )
        await refused(
            E.TABLE_NOT_PARTITIONED_EXCEPTION, client.admin.list_partition_infos(client.path("t"))
        )


async def test_each_partition_is_a_log(connect, append_rows):
    """Rows go where their values say; each partition has its own offsets, and is read by itself."""
    async with connect() as client:
        table = await create(client, buckets=2)
        for day in ("1", "2"):
            await client.admin.create_partition(client.path("t"), {"day": day})
        await append_rows(table, [{"id": n, "day": "12"[n % 3 == 0], "zone": "eu"} for n in range(30)])
        ids = await listed(client)
        first = await read(table, {(ids["1"], bucket): 0 for bucket in range(2)})
        both = await read(table, {(i, bucket): 0 for i in ids.values() for bucket in range(2)})

        assert [(n, "1", "eu") for n in range(30) if n % 3] == first
        assert [(n, "12"[n % 3 == 0], "eu") for n in range(30)] == both
        assert 20 == sum((await ends(client, "1", 2)).values())
        assert 10 == sum((await ends(client, "2", 2)).values())


async def test_the_last_rows_of_a_partition(connect, append_rows):
    """A limit scan is of one bucket of one partition; another partition's rows are not in it."""
    async with connect() as client:
        table = await create(client)
        for day in ("1", "2"):
            await client.admin.create_partition(client.path("t"), {"day": day})
        await append_rows(table, [{"id": n, "day": "12"[n % 3 == 0], "zone": "eu"} for n in range(30)])
        ids = await listed(client)
        table_id = table.get_table_info().table_id
        found = {}
        for day, partition_id in ids.items():
            bucket = fluss.TableBucket.with_partition(table_id, partition_id, 0)
            scanner = table.new_scan().limit(4).create_bucket_batch_scanner(bucket)
            found[day] = [row["id"] for row in (await scanner.to_arrow()).to_pylist()]

        assert {"1": [25, 26, 28, 29], "2": [18, 21, 24, 27]} == found


async def test_partitions_survive_a_kill(connect, start_flussd, append_rows, tmp_path):
    """1. Rows in two partitions, one partition dropped. 2. kill -9. 3. All is as it was."""
    arguments = ("--port", 0, "--data-dir", tmp_path / "data")
    server = start_flussd(*arguments)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await create(client)
        for day in ("1", "2", "3"):
            await client.admin.create_partition(client.path("t"), {"day": day})
        await append_rows(table, [{"id": n, "day": "123"[n % 3], "zone": "eu"} for n in range(30)])
        before = await listed(client)
        await client.admin.drop_partition(client.path("t"), {"day": "2"})
    server.kill()
    server = start_flussd(*arguments)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await client.table("t")
        ids = await listed(client)
        rows = await read(table, {(i, 0): 0 for i in ids.values()})
        await client.admin.create_partition(client.path("t"), {"day": "2"})
        again = await listed(client)
        end = await ends(client, "2")

        assert {"1": before["1"], "3": before["3"]} == ids
        assert [(n, "123"[n % 3], "eu") for n in range(30) if n % 3 != 1] == rows
        assert again["2"] not in before.values()
        assert {0: 0} == end
        files = [path.parent.parent.name for path in (tmp_path / "data").rglob("*.log")]
        assert not [name for name in files if name.endswith(f"-p{before['2']}")]


@pytest.mark.parametrize("outage", ["kill", "nodes"])
async def test_clients_that_forgot_their_tables(connect, start_flussd, append_rows, tmp_path, port, outage):
    """A writer and a reader of partitions go on after an outage, and after somebody asked for the nodes.

    pyfluss 1.0.0 forgets every table then: with the Java server, too, its writers raise that there is no
    such table, or panic at the partitions of a table that they do not know, and never write again.
    """
    arguments = ("--port", port, "--data-dir", tmp_path)
    server = start_flussd(*arguments)
    async with connect(server.bootstrap_servers, "db") as client:
        table = await create(client)
        for day in ("1", "2"):
            await client.admin.create_partition(client.path("t"), {"day": day})
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe_partition_buckets({(n, 0): 0 for n in (await listed(client)).values()})
        writer = table.new_append().create_writer()
        for n in range(40):
            if n % 10 == 5 and outage == "kill":
                server.kill()
                server = await asyncio.to_thread(start_flussd, *arguments)
            elif n % 10 == 5:
                await client.admin.get_server_nodes()
                await client.admin.create_partition(client.path("t"), {"day": f"1{n}"})
                writer.append({"id": 100 + n, "day": f"1{n}", "zone": "eu"})
            writer.append({"id": n, "day": "12"[n % 2], "zone": "eu"})
            await asyncio.wait_for(writer.flush(), 20)
        rows = [record.row["id"] for record in await client.records(scanner, 40)]

        assert list(range(40)) == sorted(rows)


async def test_a_dropped_partition_cannot_be_read(connect, append_rows):
    """Its name is unknown at once; a table that is dropped takes its partitions with it."""
    async with connect() as client:
        table = await create(client)
        await client.admin.create_partition(client.path("t"), {"day": "1"})
        await append_rows(table, [{"id": 1, "day": "1", "zone": "eu"}])
        await client.admin.drop_partition(client.path("t"), {"day": "1"})
        await refused(E.PARTITION_NOT_EXISTS, ends(client, "1"))
        await client.admin.create_partition(client.path("t"), {"day": "2"})
        await client.admin.drop_table(client.path("t"))
        await create(client)

        assert {} == await listed(client)


async def test_partitions_are_made_ahead(connect, append_rows):
    """Today's and tomorrow's are there with the table, in the zone of the table, and can be written."""
    async with connect() as client:
        zone = dt.timezone(dt.timedelta(hours=14))
        before = dt.datetime.now(zone)
        table = await create(client, zone="Pacific/Kiritimati")
        names = list(await listed(client))
        today = min(names)
        await append_rows(table, [{"id": 1, "day": today, "zone": "eu"}])
        days = [
            [f"{day + dt.timedelta(days=n):%Y%m%d}" for n in (0, 1)]
            for day in (before, dt.datetime.now(zone))
        ]

        assert sorted(names) in days
        assert {0: 1} == await ends(client, today)


async def test_a_zone_that_nobody_knows(connect):
    """Refused with 39 when the table is made."""
    async with connect() as client:
        await refused(E.INVALID_CONFIG_EXCEPTION, create(client, zone="No/Where"))
        await create(client, zone="+14:00")


@pytest.mark.parametrize("zone", ["Europe", "../../etc/passwd", "No/Where", "", "/etc/localtime", "a\0b"])
def test_no_zones(zone):
    """Folders, paths and unknown names are refused, and nothing is raised."""
    assert system_zones(zone, 0) is None


@pytest.mark.parametrize(
    ("zone", "wall_ms", "expected"),
    [
        ("Europe/Berlin", 1_699_999_999_000, "2023-11-14T23:13:19"),
        ("Europe/Berlin", 1_690_000_000_000, "2023-07-22T06:26:40"),
        ("+01:00", 1_690_000_000_000, "2023-07-22T05:26:40"),
    ],
)
def test_zones(zone, wall_ms, expected):
    """Summer time counts where there is one."""
    assert dt.datetime.fromisoformat(expected) == system_zones(zone, wall_ms)


def test_the_zone_of_the_machine():
    """The local time of the machine."""
    expected = dt.datetime.fromtimestamp(1_690_000_000, dt.UTC).astimezone().replace(tzinfo=None)

    assert expected == system_zones(None, 1_690_000_000_000)
    assert system_zones("UTC", 10**17) is None
