"""Tables and databases are altered: what clients get back, the codes of refusal, lost writes."""

import json

import pytest

from flussd.core.coordinator import layout
from flussd.core.coordinator.coordinator import Role
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

SET, DELETE, APPEND = range(3)
INT = {"type": "INTEGER"}
ROW = {"type": "ROW", "fields": [{"name": "x", "field_type": INT}, {"name": "y", "field_type": INT}]}


def path(name="t", database="fluss"):
    return messages.PbTablePath(database_name=database, table_name=name)


def request(*, name="t", columns=(), options=(), ignore=False):
    asked = messages.AlterTableRequest(table_path=path(name), ignore_if_not_exists=ignore)
    for column, data_type, *rest in columns:
        added = asked.add_columns.add(
            column_name=column, data_type_json=json.dumps(data_type).encode(), column_position_type=0
        )
        if rest:
            added.column_position_type = rest[0]
    _put(asked.config_changes, options)
    return asked


def _put(changes, options):
    for key, value, *operation in options:
        change = changes.add(config_key=key, op_type=operation[0] if operation else SET)
        if value is not None:
            change.config_value = value


def alter(world, **options):
    return world.ask(ApiKey.ALTER_TABLE, request(**options))


def alter_database(world, *options, name="db", comment=None, ignore=False):
    asked = messages.AlterDatabaseRequest(database_name=name, ignore_if_not_exists=ignore)
    _put(asked.config_changes, options)
    if comment is not None:
        asked.comment = comment
    return world.ask(ApiKey.ALTER_DATABASE, asked)


def info(world, name="t"):
    return world.ask(ApiKey.GET_TABLE_INFO, table_path=path(name))


def done(answer):
    return answer is not None and not isinstance(answer, int | tuple)


def test_columns_are_added(world):
    """Behind the old ones, in a new schema; the servers know it when the answer comes."""
    world.create_table("t")
    before = info(world)
    world.run(10)
    assert done(alter(world, columns=[("r", ROW), ("c", INT)]))
    after = info(world)

    assert (1, 2) == (before.schema_id, after.schema_id)
    assert before.modified_time < after.modified_time
    assert before.created_time == after.created_time
    columns = json.loads(after.table_json)["schema"]["columns"]
    assert [("a", 0), ("r", 1), ("c", 4)] == [(one["name"], one["id"]) for one in columns]
    assert [2, 3] == [field["field_id"] for field in columns[1]["data_type"]["fields"]]
    assert 4 == json.loads(after.table_json)["schema"]["highest_field_id"]
    old = world.ask(ApiKey.GET_TABLE_SCHEMA, table_path=path(), schema_id=1)
    assert 1 == len(json.loads(old.schema_json)["columns"])
    assert [1, 2] == list(world.tablets[0].catalog.tables["fluss", "t"].schemas)
    world.settled()
    assert done(alter(world, columns=[("d", INT)]))
    assert 3 == info(world).schema_id
    assert done(world.drop_table("t"))
    world.run(200)
    world.settled()


def test_options_are_altered(world):
    """Set, deleted, and custom ones; no new schema, and nothing is written when nothing changes."""
    world.create_table("t")
    assert done(alter(world, options=[("table.log.ttl", "1 d"), ("owner", "me")]))
    told = json.loads(info(world).table_json)
    assert ("1 d", {"owner": "me"}) == (told["properties"]["table.log.ttl"], told["custom_properties"])
    multis = world.registry.multis
    assert done(alter(world, options=[("table.log.ttl", "1 d"), ("nope", None, DELETE)]))
    assert done(alter(world))
    assert multis == world.registry.multis
    assert done(alter(world, options=[("table.log.ttl", None, DELETE), ("owner", None, DELETE)]))
    told = json.loads(info(world).table_json)
    assert ({"table.replication.factor": "1"}, {}) == (told["properties"], told["custom_properties"])
    assert 1 == info(world).schema_id
    world.settled()


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"columns": [("a", INT)]}, E.INVALID_ALTER_TABLE_EXCEPTION),
        ({"columns": [("z", INT), ("z", INT)]}, E.INVALID_ALTER_TABLE_EXCEPTION),
        ({"columns": [("z", INT | {"nullable": False})]}, E.UNKNOWN_SERVER_ERROR),
        ({"columns": [("z", INT, 1)]}, E.UNKNOWN_SERVER_ERROR),
        ({"columns": [("__offset", INT)]}, E.INVALID_TABLE_EXCEPTION),
        ({"columns": [(" ", INT)]}, E.INVALID_TABLE_EXCEPTION),
        ({"columns": [("z", {"type": "NOPE"})]}, E.INVALID_TABLE_EXCEPTION),
        ({"columns": [("z", INT)], "options": [("owner", "me")]}, E.INVALID_ALTER_TABLE_EXCEPTION),
        ({"options": [("table.log.format", "INDEXED")]}, E.INVALID_ALTER_TABLE_EXCEPTION),
        ({"options": [("table.nope", None, DELETE)]}, E.INVALID_ALTER_TABLE_EXCEPTION),
        ({"options": [("table.log.ttl", "soon")]}, E.INVALID_CONFIG_EXCEPTION),
        ({"options": [("table.auto-partition.enabled", "true")]}, E.INVALID_CONFIG_EXCEPTION),
        ({"options": [("owner", "me", APPEND)]}, E.UNKNOWN_SERVER_ERROR),
        ({"options": [("owner", None)]}, E.UNKNOWN_SERVER_ERROR),
        ({"name": "nope", "options": [("owner", "me")]}, E.TABLE_NOT_EXIST),
        ({"name": "a.b", "options": [("owner", "me")], "ignore": True}, E.INVALID_TABLE_EXCEPTION),
    ],
)
def test_alterations_are_refused(world, asked, code):
    """The code of each, and nothing is changed."""
    world.create_table("t")
    before = info(world).table_json

    assert alter(world, **asked) == code
    assert before == info(world).table_json


def test_columns_are_only_added(world):
    """Dropping, renaming, modifying and other numbers of buckets: -1."""
    world.create_table("t")
    asked = [request() for _ in range(4)]
    asked[0].drop_columns.add(column_name="a")
    asked[1].rename_columns.add(old_column_name="a", new_column_name="b")
    asked[2].modify_columns.add(column_name="a")
    asked[3].modify_bucket_count.new_bucket_count = 2
    for message in asked:
        assert world.ask(ApiKey.ALTER_TABLE, message) == E.UNKNOWN_SERVER_ERROR


def test_a_missing_table_may_be_ignored(world):
    """As the flag says."""
    assert done(alter(world, name="nope", options=[("owner", "me")], ignore=True))


def test_a_database_is_altered(world):
    """Properties and comment; a missing one is refused, unless that is to be ignored."""
    world.create_database("db")

    def told():
        return json.loads(world.ask(ApiKey.GET_DATABASE_INFO, database_name="db").database_json)

    assert done(alter_database(world, ("a", "1"), ("b", "2"), comment="c"))
    assert {"version": 1, "comment": "c", "custom_properties": {"a": "1", "b": "2"}} == told()
    assert done(alter_database(world, ("b", None, DELETE), comment=""))
    assert {"version": 1, "custom_properties": {"a": "1"}} == told()
    multis = world.registry.multis
    assert done(alter_database(world, ("a", "1")))
    assert multis == world.registry.multis
    assert alter_database(world, ("a", "1", APPEND)) == E.UNKNOWN_SERVER_ERROR
    assert alter_database(world, name="nope") == E.DATABASE_NOT_EXIST
    assert done(alter_database(world, name="nope", ignore=True))
    world.settled()
    assert done(world.create_table("t", "db"))
    assert done(world.drop_database("db", cascade=True))
    world.run(200)
    world.settled()


def test_a_new_coordinator_reads_what_was_altered(world):
    """All of it stands in the registry."""
    world.create_database("db")
    world.create_table("t")
    alter_database(world, ("a", "1"))
    alter(world, columns=[("c", INT)])
    alter(world, options=[("owner", "me")])
    before = info(world)
    world.crash()
    world.start()
    world.until(lambda: world.machine.role is Role.ACTIVE)
    world.run(500)

    assert before == info(world)
    assert {"a": "1"} == world.registry.json(layout.database_path("db"))["custom_properties"]
    world.settled()


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
def test_every_write_may_be_lost(make_world, mode):
    """Whatever became of the write, each column is added once, and the answer says so."""
    for number in range(3):
        world = make_world()
        world.create_database("db")
        world.create_table("t")
        setattr(world.registry, mode, world.registry.multis + 1 + number)
        answers = []
        for change in (
            lambda world=world: alter(world, columns=[("c", INT)]),
            lambda world=world: alter(world, options=[("owner", "me")]),
            lambda world=world: alter_database(world, ("a", "1")),
        ):
            answers.append(done(change()))
            world.registry.apply_late()
        world.run(500)

        assert [True] * 3 == answers
        assert world.machine.epoch >= 1, "the loss was noticed"
        assert 2 == info(world).schema_id
        assert {"owner": "me"} == json.loads(info(world).table_json)["custom_properties"]
        world.settled()
