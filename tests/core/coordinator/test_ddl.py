"""Databases and tables come and go: what is answered, and what stands in the registry afterwards."""

import json

from flussd.core.coordinator import layout
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E


def done(answer):
    """Whether an answer is that of success."""
    return answer is not None and not isinstance(answer, int | tuple)


def test_a_database(world):
    """Created, there, refused twice, dropped, gone."""
    assert done(world.create_database("db"))
    assert world.create_database("db") == E.DATABASE_ALREADY_EXIST
    assert done(world.create_database("db", ignore=True))
    info = world.ask(ApiKey.GET_DATABASE_INFO, database_name="db")
    assert {"version": 1, "custom_properties": {}} == json.loads(info.database_json)
    assert done(world.drop_database("db"))
    assert world.drop_database("db") == E.DATABASE_NOT_EXIST
    assert done(world.drop_database("db", ignore=True))
    world.settled()


def test_a_database_with_tables_needs_cascade(world):
    """1. Refused with 5. 2. With cascade the tables go first, all in the same write when they are few."""
    world.create_database("db")
    for name in ("a", "b", "c"):
        assert done(world.create_table(name, "db", buckets=2))
    assert world.drop_database("db") == E.DATABASE_NOT_EMPTY
    multis = world.registry.multis
    assert done(world.drop_database("db", cascade=True))
    assert 1 == world.registry.multis - multis
    world.run(200)
    world.settled()
    assert 6 == len(world.tablets[0].erased)


def test_a_database_with_many_tables(world):
    """More tables than one write takes: they go in several, and the database with the last."""
    world.create_database("db")
    for number in range(120):
        world.create_table(f"t{number}", "db")
    assert done(world.drop_database("db", cascade=True))
    world.run(500)
    world.settled()


def test_the_default_database_stays(world):
    """It cannot be dropped, nor made again."""
    assert world.drop_database("fluss", cascade=True) == E.UNKNOWN_SERVER_ERROR
    assert world.create_database("fluss") == E.DATABASE_ALREADY_EXIST


def test_a_created_table_is_led_when_it_is_answered(world):
    """The tablet server knows the table, and leads each bucket, before the client hears of it."""
    assert done(world.create_table("t", buckets=300))
    assert [(0, -1, bucket) for bucket in range(300)] == sorted(world.tablets[0].leads)
    assert ("fluss", "t") in world.tablets[0].catalog.tables
    world.settled()


def test_tables_are_refused(world):
    """The codes of creation and dropping, in the order of the checks."""
    assert world.create_table("t", "nope") == E.DATABASE_NOT_EXIST
    assert world.create_table("a.b", "fluss") == E.INVALID_TABLE_EXCEPTION
    assert world.create_table("t", "a.b") == E.INVALID_DATABASE_EXCEPTION
    assert world.create_table("__t") == E.INVALID_TABLE_EXCEPTION
    assert world.create_table("t", buckets=5000) == E.BUCKET_MAX_NUM_EXCEPTION
    assert world.create_table("t", no_such="1") == E.INVALID_CONFIG_EXCEPTION
    assert world.drop_table("t") == E.TABLE_NOT_EXIST
    assert done(world.drop_table("t", ignore=True))
    assert done(world.create_table("t"))
    assert world.create_table("t") == E.TABLE_ALREADY_EXIST
    assert done(world.create_table("t", ignore=True))
    assert {0: "t"} == {one.table_id: one.name for one in world.machine.state.catalog.tables.values()}


def test_replication_is_refused_plainly(make_world):
    """More replicas than servers, or more than one at all: 17, and the text says which."""
    world = make_world(tablets=2)
    for wanted, words in (("3", "2 live tablet servers"), ("2", "keeps one replica")):
        message = messages.CreateTableRequest(
            table_path=messages.PbTablePath(database_name="fluss", table_name="t"),
            table_json=_with_property("table.replication.factor", wanted),
            ignore_if_exists=False,
        )
        request_id = world.send(ApiKey.CREATE_TABLE, message)
        world.answer(request_id)
        code, text = world.replies[request_id]
        assert (E.INVALID_REPLICATION_FACTOR, True) == (code, words in text)


def _with_property(key, value):
    schema = {"version": 1, "columns": [{"name": "a", "data_type": {"type": "INTEGER"}}]}
    properties = {"schema": schema, "partition_key": [], "properties": {key: value}}
    return json.dumps(properties | {"version": 1, "custom_properties": {}}).encode()


def test_buckets_are_spread(make_world):
    """Round robin over the live servers, each table beginning at another one."""
    world = make_world(tablets=3)
    world.create_table("t", buckets=4)
    world.create_table("u", buckets=4)
    state = world.machine.state
    assert ((0,), (1,), (2,), (0,)) == state.assignments[0, -1]
    assert ((1,), (2,), (0,), (1,)) == state.assignments[1, -1]
    world.settled()


def test_a_dropped_table_is_erased(world):
    """1. Dropped: the name is free at once. 2. The server erases. 3. Nothing is left in the registry."""
    world.create_table("t", buckets=3)
    assert done(world.drop_table("t"))
    assert done(world.create_table("t", buckets=1))
    world.run(200)

    assert [(0, -1, 0), (0, -1, 1), (0, -1, 2)] == sorted(world.tablets[0].erased)
    assert ["1"] == world.registry.children(layout.ASSIGNMENTS)
    world.settled()


def test_the_counter_of_an_auto_increment_column(world):
    """Made and dropped with its table, whatever its tablet servers wrote to it."""
    columns = [
        {"name": "a", "data_type": {"type": "INTEGER", "nullable": False}},
        {"name": "n", "data_type": {"type": "BIGINT"}},
    ]
    schema = {"version": 1, "columns": columns, "primary_key": ["a"], "auto_increment_column": ["n"]}
    table = {"version": 1, "schema": schema, "partition_key": [], "properties": {}, "custom_properties": {}}
    message = messages.CreateTableRequest(table_json=json.dumps(table).encode(), ignore_if_exists=False)
    message.table_path.database_name, message.table_path.table_name = "fluss", "t"
    assert done(world.answer(world.send(ApiKey.CREATE_TABLE, message)))
    path = layout.counter_path(("fluss", "t"), 1)
    world.registry.tree.nodes[path].version = 7
    assert bytes(8) == world.registry.tree.nodes[path].data

    assert done(world.drop_table("t"))
    assert [] == world.registry.children(layout.tables_path("fluss"))
    world.run(200)
    world.settled()


def test_a_drop_waits_for_a_server_that_is_away(world):
    """1. The server is down when its table is dropped. 2. It returns, erases, and the tombstone goes."""
    world.create_table("t", buckets=2)
    tablet = world.tablets[0]
    tablet.kill()
    world.until(lambda: not world.machine.state.servers)
    assert done(world.drop_table("t"))
    world.run(1000)
    assert ["0"] == world.registry.children(layout.DROPPED)
    tablet.register()
    world.run(500)

    assert 2 == len(tablet.erased)
    world.settled()


def test_a_drop_survives_a_restart_in_the_middle(world):
    """1. The server does not erase. 2. The coordinator restarts. 3. It erases now: nothing is left."""
    world.create_table("t", buckets=2)
    tablet = world.tablets[0]
    tablet.deletes = False
    assert done(world.drop_table("t"))
    world.run(100)
    assert 2 == len(world.machine.state.undeleted)
    tablet.deletes = True
    world.crash()
    world.start()
    world.run(500)

    assert 2 == len(tablet.erased)
    world.settled()


def test_a_creation_is_answered_though_no_leader_comes(make_world):
    """1. A server is frozen. 2. A table is created: answered when the patience ends, at the latest."""
    world = make_world(tablets=2)
    world.tablets[1].is_frozen = True
    began_ms = world.now_ms
    assert done(world.create_table("t", buckets=2))
    assert world.now_ms - began_ms <= 5_100
    assert ["t"] == world.tables()


def test_metadata_waits_for_a_leader(world):
    """1. The server is gone: a bucket has no leader. 2. The answer is held 200 ms, then says so.

    3. The server comes back while a question waits: the answer has the leader at once.
    """
    world.create_table("t")
    path = messages.PbTablePath(database_name="fluss", table_name="t")
    tablet = world.tablets[0]
    tablet.kill()
    world.until(lambda: not world.machine.state.servers)
    began_ms = world.now_ms
    bucket = world.ask(ApiKey.GET_METADATA, table_path=[path]).table_metadata[0].bucket_metadata[0]
    assert (False, [0]) == (bucket.HasField("leader_id"), list(bucket.replica_id))
    assert 190 <= world.now_ms - began_ms <= 220
    world.run(1000)
    request_id = world.send(ApiKey.GET_METADATA, messages.MetadataRequest(table_path=[path]))
    world.run(20)
    tablet.register()
    began_ms = world.now_ms
    bucket = world.answer(request_id).table_metadata[0].bucket_metadata[0]

    assert 0 == bucket.leader_id
    assert world.now_ms - began_ms < 50


def test_many_requests_at_once(world):
    """DDL requests queue: each is answered, in the order in which they came."""
    ids = [world.send_create(f"t{number}") for number in range(50)]
    twice = [world.send_create(f"t{number}") for number in range(50)]
    world.until(lambda: all(one in world.replies for one in (*ids, *twice)))

    assert all(done(world.replies[one]) for one in ids)
    assert {E.TABLE_ALREADY_EXIST} == {world.replies[one][0] for one in twice}
    assert sorted(f"t{number}" for number in range(50)) == world.tables()
    assert list(range(50)) == sorted(world.machine.state.catalog.by_id)


def test_the_queue_has_a_bound(world):
    """Beyond it a request is refused at once; what was accepted is done."""
    ids = [world.send(ApiKey.CREATE_DATABASE, _database(number)) for number in range(1200)]
    world.until(lambda: all(one in world.replies for one in ids))

    refused = [one for one in ids if not done(world.replies[one])]
    assert {E.UNKNOWN_SERVER_ERROR} == {world.replies[one][0] for one in refused}
    assert 1 + 1200 - len(refused) == len(world.machine.state.catalog.databases)
    assert 150 <= len(refused) <= 200


def _database(number):
    return messages.CreateDatabaseRequest(database_name=f"d{number}", ignore_if_exists=False)


def test_a_table_too_large_for_the_registry(world):
    """A descriptor that no transaction takes is refused, and leaves nothing behind."""
    value = json.loads(_with_property("table.log.ttl", "1 d"))
    value["custom_properties"] = {"x": "y" * 1_048_000}
    message = messages.CreateTableRequest(
        table_path=messages.PbTablePath(database_name="fluss", table_name="t"),
        table_json=json.dumps(value).encode(),
        ignore_if_exists=False,
    )
    answer = world.answer(world.send(ApiKey.CREATE_TABLE, message))

    assert answer == E.UNKNOWN_SERVER_ERROR
    assert done(world.create_table("t"))
    world.settled()


def test_a_client_that_leaves(world):
    """What it asked for and was begun is finished; nobody is answered."""
    world.send_create("t")
    world.run(0)
    world.close_client()
    world.run(200)

    assert ["t"] == world.registry.children(layout.tables_path("fluss"))
    assert {} == world.machine.requests.waits
    world.settled()
