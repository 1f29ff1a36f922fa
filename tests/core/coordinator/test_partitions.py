"""Partitions come and go, asked for or by themselves: answers, registry, servers, and lost writes."""

import datetime as dt
import json

import pytest

from flussd.core.coordinator import layout
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.coordinator import Role
from flussd.core.coordinator.zones import fixed_zones
from flussd.core.records.descriptor import ClusterDefaults
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

AUTO = {"table.auto-partition.enabled": "true"}
DAY_MS = 86_400_000
CHECK_INTERVAL_MS = CoordinatorConfig().auto_partition_check_ms
TODAY = "20231114"  # of the world's wall clock


def path(name="t", database="fluss"):
    return messages.PbTablePath(database_name=database, table_name=name)


def table_json(*keys, buckets=1, **properties):
    """A log table with an int column and a text column for each partition key."""
    columns = [{"name": "a", "data_type": {"type": "INTEGER"}}]
    columns += [{"name": key, "data_type": {"type": "STRING"}} for key in keys]
    value = {"schema": {"version": 1, "columns": columns}, "partition_key": list(keys), "bucket_key": []}
    value |= {"bucket_count": buckets, "properties": properties, "custom_properties": {}, "version": 1}
    return json.dumps(value).encode()


def send_create(world, name="t", *keys, database="fluss", **options):
    message = messages.CreateTableRequest(
        table_path=path(name, database),
        table_json=table_json(*(keys or ("p",)), **options),
        ignore_if_exists=False,
    )
    return world.send(ApiKey.CREATE_TABLE, message)


def create(world, name="t", *keys, **options):
    return world.answer(send_create(world, name, *keys, **options))


def spec_of(values):
    spec = messages.PbPartitionSpec()
    for key, value in values.items():
        spec.partition_key_values.add(key=key, value=value)
    return spec


def send(world, api_key, name="t", *, ignore=False, **values):
    message = messages.request_class(api_key)(
        table_path=path(name), partition_spec=spec_of(values), ignore_if_not_exists=ignore
    )
    return world.send(api_key, message)


def add(world, name="t", **options):
    return world.answer(send(world, ApiKey.CREATE_PARTITION, name, **options))


def drop(world, name="t", **options):
    return world.answer(send(world, ApiKey.DROP_PARTITION, name, **options))


def listed(world, name="t", **partial):
    """The partitions of a table, name -> id, as a client is told."""
    asked = messages.ListPartitionInfosRequest(table_path=path(name))
    if partial:
        asked.partial_partition_spec.CopyFrom(spec_of(partial))
    answer = world.ask(ApiKey.LIST_PARTITION_INFOS, asked)
    return {
        "$".join(pair.value for pair in info.partition_spec.partition_key_values): info.partition_id
        for info in answer.partitions_info
    }


def done(answer):
    return answer is not None and not isinstance(answer, int | tuple)


@pytest.fixture
def calm(make_world):
    """A world whose servers are asked for news every ten minutes: its days pass in few steps."""
    return make_world(ping_interval_ms=600_000)


def settled(world):
    """All converged, and the registry has the partitions of the catalog and nothing besides."""
    world.settled()
    registry, catalog = world.registry, world.machine.state.catalog
    assert sorted(map(str, catalog.partitions)) == registry.children(layout.PARTITION_ASSIGNMENTS)
    for where, table in catalog.tables.items():
        parent, names = layout.partitions_path(where), catalog.partition_names.get(table.table_id)
        assert bool(names) == (parent in registry.tree.nodes)
        assert not names or sorted(names) == registry.children(parent)


# ---- asked for -----------------------------------------------------------------------------------


def test_a_partition_comes_and_goes(world):
    """1. Created: listed, and led when it is answered. 2. Dropped: its buckets are erased."""
    assert done(create(world, buckets=2))
    assert done(add(world, p="a"))
    assert [(0, 0, 0), (0, 0, 1)] == sorted(world.tablets[0].leads)
    assert done(add(world, p="b"))
    assert {"a": 0, "b": 1} == listed(world)
    assert {"version": 1, "table_id": 0, "buckets": {"0": [0], "1": [0]}} == world.registry.json(
        layout.assignment_path((0, 0))
    )
    assert done(drop(world, p="a"))
    world.run(200)

    assert {"b": 1} == listed(world)
    assert [(0, 0, 0), (0, 0, 1)] == sorted(world.tablets[0].erased)
    settled(world)
    assert done(drop(world, p="b"))
    assert done(add(world, p="a"))
    assert {"a": 2} == listed(world), "ids are never used again"
    settled(world)


def test_several_keys(world):
    """A spec may name its columns in any order; a partial one filters, an unknown column is refused."""
    create(world, "t", "p", "q")
    assert done(add(world, q="eu", p="2026"))
    assert done(add(world, p="2026", q="us"))
    assert done(add(world, p="2027", q="eu"))
    assert ["2026$eu", "2026$us", "2027$eu"] == list(listed(world))
    assert ["2026$eu", "2027$eu"] == list(listed(world, q="eu"))
    asked = messages.ListPartitionInfosRequest(
        table_path=path(), partial_partition_spec=spec_of({"z": "1"})
    )
    assert world.ask(ApiKey.LIST_PARTITION_INFOS, asked) == E.UNKNOWN_SERVER_ERROR


def test_partitions_are_refused(make_world):
    """The codes of creation and dropping."""
    world = make_world(defaults=ClusterDefaults(max_partitions=3, max_bucket_count=4))
    assert add(world, p="a") == E.TABLE_NOT_EXIST
    world.create_table("plain")
    for answer in (add(world, "plain", p="a"), drop(world, "plain", p="a")):
        assert answer == E.TABLE_NOT_PARTITIONED_EXCEPTION
    create(world)
    assert add(world, z="a") == E.PARTITION_SPEC_INVALID_EXCEPTION
    assert add(world, p="a b") == E.PARTITION_SPEC_INVALID_EXCEPTION
    assert drop(world, p="a") == E.PARTITION_NOT_EXISTS
    assert done(drop(world, p="a", ignore=True))
    for value in ("a", "b", "c"):
        assert done(add(world, p=value))
    assert add(world, p="a") == E.PARTITION_ALREADY_EXISTS
    assert done(add(world, p="a", ignore=True))
    assert add(world, p="d") == E.PARTITION_MAX_NUM_EXCEPTION
    create(world, "wide", buckets=3)
    assert done(add(world, "wide", p="a"))
    assert add(world, "wide", p="b") == E.BUCKET_MAX_NUM_EXCEPTION


def test_no_server_is_there(world):
    """A partition that would live nowhere is refused with 17, like a table."""
    create(world)
    world.tablets[0].unregister()
    world.run(100)
    assert add(world, p="a") == E.INVALID_REPLICATION_FACTOR


def test_metadata(world):
    """By name and by id, with leaders; a table with partitions has no buckets of its own."""
    create(world, buckets=2)
    add(world, p="a")
    named = messages.PbPhysicalTablePath(database_name="fluss", table_name="t", partition_name="a")
    asked = messages.MetadataRequest(table_path=[path()], partitions_path=[named], partitions_id=[0])
    answer = world.ask(ApiKey.GET_METADATA, asked)

    assert [] == list(answer.table_metadata[0].bucket_metadata)
    assert [(0, "a", 0)] * 2 == [
        (one.table_id, one.partition_name, one.partition_id) for one in answer.partition_metadata
    ]
    leaders = [(one.bucket_id, one.leader_id) for one in answer.partition_metadata[0].bucket_metadata]
    assert [(0, 0), (1, 0)] == leaders
    asked = messages.MetadataRequest(partitions_id=[7])
    assert world.ask(ApiKey.GET_METADATA, asked) == E.PARTITION_NOT_EXISTS


@pytest.mark.parametrize("cascade", [False, True])
def test_a_table_goes_with_its_partitions(world, cascade):
    """More of them than one write takes; by itself, or with its database."""
    world.create_database("db")
    create(world, database="db")
    for number in range(130):
        asked = messages.CreatePartitionRequest(
            table_path=path("t", "db"),
            partition_spec=spec_of({"p": f"v{number}"}),
            ignore_if_not_exists=False,
        )
        assert done(world.ask(ApiKey.CREATE_PARTITION, asked))
    answer = world.drop_database("db", cascade=True) if cascade else world.drop_table("t", "db")
    assert done(answer)
    world.run(500)

    assert 130 == len(world.tablets[0].erased)
    settled(world)


def test_another_coordinator_finds_all(world):
    """1. Partitions, one of them dropped while its server is away. 2. A new process reads it all again."""
    create(world, buckets=2)
    for value in ("a", "b", "c"):
        add(world, p=value)
    tablet = world.tablets[0]
    tablet.kill()
    tablet.unregister()
    world.run(500)
    assert done(drop(world, p="b"))
    world.crash()
    world.start()
    world.until(lambda: world.machine.role is Role.ACTIVE)
    tablet.register()
    world.run(1000)

    assert {"a": 0, "c": 2} == listed(world)
    assert [(0, 1, 0), (0, 1, 1)] == sorted(tablet.erased)
    settled(world)
    assert done(add(world, p="b"))
    assert {"a": 0, "b": 3, "c": 2} == listed(world)


# ---- by themselves -------------------------------------------------------------------------------


def test_partitions_are_made_ahead(world):
    """Those of today and tomorrow are there when the creation is answered."""
    assert done(create(world, **AUTO))

    assert {TODAY: 0, "20231115": 1} == listed(world)
    settled(world)


def test_time_passes(calm):
    """1. Each day brings a partition, ten minutes late at most. 2. What is older than a week goes."""
    create(calm, **AUTO)
    calm.run(DAY_MS + CHECK_INTERVAL_MS)
    assert [TODAY, "20231115", "20231116"] == list(listed(calm))
    calm.run(6 * DAY_MS)
    assert TODAY == min(listed(calm))
    calm.run(DAY_MS + CHECK_INTERVAL_MS)

    assert ("20231115", "20231123") == (min(listed(calm)), max(listed(calm)))
    settled(calm)


def test_a_table_with_several_keys_only_loses_partitions(calm):
    """Nobody knows the other values, so none is made; what has expired goes, whatever its other values."""
    create(calm, "t", "p", "q", **AUTO | {"table.auto-partition.key": "p"})
    assert {} == listed(calm)
    for q in ("eu", "us"):
        assert done(add(calm, p="20231107", q=q))
    assert done(add(calm, p="20231108", q="eu"))
    assert add(calm, p="20231106", q="eu") == E.PARTITION_SPEC_INVALID_EXCEPTION
    assert add(calm, p="2023-11", q="eu") == E.PARTITION_SPEC_INVALID_EXCEPTION
    calm.run(DAY_MS + CHECK_INTERVAL_MS)
    assert ["20231108$eu"] == list(listed(calm))


def test_the_option_is_altered(world):
    """1. Switched on: partitions come at once, what is no time stays. 2. More are wanted: more come."""
    create(world)
    add(world, p="00")
    add(world, p="20200101")

    def alter(key, value):
        asked = messages.AlterTableRequest(table_path=path(), ignore_if_not_exists=False)
        asked.config_changes.add(config_key=key, config_value=value, op_type=0)
        return world.ask(ApiKey.ALTER_TABLE, asked)

    assert done(alter("table.auto-partition.enabled", "true"))
    world.run(100)
    assert ["00", TODAY, "20231115"] == list(listed(world))
    assert done(alter("table.auto-partition.num-precreate", "120"))
    world.run(200)
    assert 121 == len(listed(world))
    settled(world)


def test_the_limit_of_partitions(make_world):
    """As many as may be are made, and the coordinator says why there are no more."""
    world = make_world(defaults=ClusterDefaults(max_partitions=3), ping_interval_ms=600_000)
    create(world, **AUTO | {"table.auto-partition.num-precreate": "3"})
    add(world, p="20231201")
    assert 3 == len(listed(world))
    assert add(world, p="20231202") == E.PARTITION_MAX_NUM_EXCEPTION
    world.run(DAY_MS + CHECK_INTERVAL_MS)
    assert 3 == len(listed(world))
    assert "auto partition" in world.states


def test_nobody_is_there_to_hold_them(calm):
    """1. The servers are away when a day begins. 2. They return, and the partition is made."""
    create(calm, **AUTO)
    calm.tablets[0].unregister()
    calm.run(DAY_MS + CHECK_INTERVAL_MS)
    assert 2 == len(listed(calm))
    calm.tablets[0].register()
    calm.run(1000)
    assert [TODAY, "20231115", "20231116"] == list(listed(calm))


def test_zones(world):
    """A fixed distance from UTC counts, and a zone that nobody knows is refused with 39."""
    create(world, "east", **AUTO | {"table.auto-partition.time-zone": "+08:00"})
    assert ["20231115", "20231116"] == list(listed(world, "east"))
    answer = create(world, "nowhere", **AUTO | {"table.auto-partition.time-zone": "Nowhere/City"})
    assert answer == E.INVALID_CONFIG_EXCEPTION


@pytest.mark.parametrize(
    ("zone", "hour"),
    [("UTC", 0), ("Z", 0), (None, 0), ("+8", 8), ("UTC-03:30", -3.5), ("GMT+0530", 5.5)],
)
def test_fixed_zones(zone, hour):
    """What needs no data is known everywhere."""
    expected = dt.datetime.fromisoformat("2023-11-14") + dt.timedelta(hours=hour)

    wall_ms = 1_699_920_000_000
    assert expected == fixed_zones(zone, wall_ms)


@pytest.mark.parametrize("zone", ["", "+", "+25", "+8:61", "Europe/Berlin", "UTC+1x"])
def test_no_fixed_zones(zone):
    """All else is not guessed; the empty name is the server's zone."""
    assert (fixed_zones(zone, 0) is None) == bool(zone)


# ---- lost writes ---------------------------------------------------------------------------------

STORY = (
    ("create table", "t", {}),
    ("create table", "auto", AUTO),
    ("add", "t", {"p": "a"}),
    ("add", "t", {"p": "b"}),
    ("drop", "t", {"p": "a"}),
    ("add", "t", {"p": "a"}),
    ("drop", "t", {"p": "b"}),
    ("drop table", "t", {}),
)


def play(world, *, at_unknown=lambda: None):
    """Each request waits for the answer before; each answer must be the truth."""
    for what, name, values in STORY:
        if what == "create table":
            request_id = send_create(world, name, buckets=2, **values)
        elif what == "drop table":
            asked = messages.DropTableRequest(table_path=path(name), ignore_if_not_exists=False)
            request_id = world.send(ApiKey.DROP_TABLE, asked)
        else:
            api_key = ApiKey.CREATE_PARTITION if what == "add" else ApiKey.DROP_PARTITION
            request_id = send(world, api_key, name, **values)
        world.until(lambda request_id=request_id: request_id in world.replies)
        at_unknown()
        assert done(world.replies[request_id]), f"{what} {name} {values}: {world.replies[request_id]}"
        if values and values is not AUTO:
            there = layout.partition_path(("fluss", name), values["p"]) in world.registry.tree.nodes
            assert there == (what == "add")


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
def test_every_write_may_be_lost(make_world, mode):
    """1. The k-th write is lost. 2. It is found out what became of it. 3. Every answer is the truth."""
    world = make_world()
    first = world.registry.multis + 1
    play(world)
    world.run(300)
    settled(world)
    last = world.registry.multis
    assert last - first > 15
    for number in range(first, last + 1):
        world = make_world()
        setattr(world.registry, mode, number)
        play(world, at_unknown=world.registry.apply_late)
        world.run(500)
        world.registry.apply_late()
        world.run(300)
        settled(world)
        assert world.machine.epoch >= 1, "the loss was noticed"
        assert {TODAY, "20231115"} == set(listed(world, "auto"))


def test_a_crash_at_every_moment(make_world):
    """1. The process dies in the middle. 2. The next one ends what was begun, and all converges."""
    for delay_ms in range(0, 60, 3):
        world = make_world()
        create(world, buckets=2)
        create(world, "auto", **AUTO)
        add(world, p="a")
        send(world, ApiKey.CREATE_PARTITION, p="b")
        send(world, ApiKey.DROP_PARTITION, p="a")
        asked = messages.DropTableRequest(table_path=path("auto"), ignore_if_not_exists=False)
        world.send(ApiKey.DROP_TABLE, asked)
        world.run(delay_ms)
        world.crash()
        world.start()
        world.until(lambda world=world: world.machine.role is Role.ACTIVE)
        world.run(1000)
        settled(world)
