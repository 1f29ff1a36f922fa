"""Nobody knows whether a write was applied: the client's answer is true all the same, and all converges.

For each write of a small history: it is lost before it is applied, its answer is lost, or it arrives
after the coordinator was told that its outcome is unknown. The same for a crash at each moment.
"""

import pytest

from flussd.core.coordinator import layout
from flussd.core.coordinator.coordinator import Role
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

STORY = (
    ("create database", "db", ""),
    ("create table", "db", "a"),
    ("create table", "db", "b"),
    ("drop table", "db", "a"),
    ("create table", "db", "a"),
    ("create table", "fluss", "c"),
    ("drop database", "db", ""),
    ("drop table", "fluss", "c"),
    ("create database", "db", ""),
)


def send(world, what, database, table):
    """Send one request of a story; return its id."""
    path = messages.PbTablePath(database_name=database, table_name=table)
    if what == "create database":
        request = messages.CreateDatabaseRequest(database_name=database, ignore_if_exists=False)
        return world.send(ApiKey.CREATE_DATABASE, request)
    if what == "drop database":
        request = messages.DropDatabaseRequest(
            database_name=database, ignore_if_not_exists=False, cascade=True
        )
        return world.send(ApiKey.DROP_DATABASE, request)
    if what == "create table":
        return world.send_create(table, database, buckets=3)
    return world.send(
        ApiKey.DROP_TABLE, messages.DropTableRequest(table_path=path, ignore_if_not_exists=False)
    )


def exists(world, what, database, table):
    """Whether what a request is about stands in the registry."""
    if "database" in what:
        return database in world.registry.children(layout.DATABASES)
    parent = layout.tables_path(database)
    return parent in world.registry.tree.nodes and table in world.registry.children(parent)


def play(world, *, at_unknown=lambda: None):
    """Send each request after the answer to the one before; each answer must be the truth."""
    for what, database, table in STORY:
        request_id = send(world, what, database, table)
        world.until(lambda request_id=request_id: request_id in world.replies)
        at_unknown()
        answer = world.replies[request_id]
        assert not isinstance(answer, tuple), f"{what} {database}.{table}: {answer}"
        assert answer is not None
        assert exists(world, what, database, table) == what.startswith("create")


def writes_of_the_story(make_world):
    world = make_world()
    before = world.registry.multis
    play(world)
    world.run(300)
    world.settled()
    return range(before + 1, world.registry.multis + 1)


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
def test_every_write_may_be_lost(make_world, mode):
    """1. The k-th write is lost. 2. It is found out what became of it. 3. Every answer is the truth."""
    numbers = writes_of_the_story(make_world)
    assert len(numbers) > 15
    for number in numbers:
        world = make_world()
        setattr(world.registry, mode, number)
        play(world, at_unknown=world.registry.apply_late)
        world.run(500)
        world.registry.apply_late()
        world.run(300)
        world.settled()
        assert world.machine.epoch >= 1, "the loss was noticed"


@pytest.mark.parametrize("delay_ms", [0, 1, 20, 60])
def test_every_write_may_arrive_late(make_world, delay_ms):
    """The lost write is applied this much after its outcome was told to be unknown.

    Before the new epoch it counts, behind it it is refused; the answer says which.
    """
    for number in writes_of_the_story(make_world):
        world = make_world()
        world.registry.lose_late = number
        apply_late = world.registry.apply_late

        def watch(world=world, apply_late=apply_late):
            if world.registry.late is not None:
                world.at(delay_ms, apply_late)
            else:
                world.at(1, watch)

        watch()
        play(world)
        world.run(500)
        world.settled()


def test_several_losses_in_a_row(make_world):
    """Writes of the new attempts are lost as well."""
    for first in range(3, 12):
        world = make_world()
        world.registry.lose_before = first
        world.registry.lose_after = first + 1
        world.registry.lose_late = first + 2
        play(world, at_unknown=world.registry.apply_late)
        world.registry.apply_late()
        world.run(1000)
        world.settled()


def test_a_session_lost_at_every_moment(make_world):
    """The registry declares the coordinator dead while a table is created or dropped."""
    for delay_ms in range(14):
        world = make_world()
        world.create_table("old", buckets=3)
        created = world.send_create("new", buckets=3)
        dropped = send(world, "drop table", "fluss", "old")
        world.run(delay_ms)
        world.lose_session()
        world.until(lambda ids=(created, dropped), world=world: all(one in world.replies for one in ids))
        world.run(300)

        assert not isinstance(world.replies[created], tuple)
        assert ["new"] == world.tables()
        world.settled()


def test_a_crash_at_every_moment(make_world):
    """1. The coordinator dies at some moment of a history. 2. The next one goes on.

    3. What was answered is true; what was not, happened whole or not at all.
    """
    for delay_ms in range(30):
        world = make_world()
        world.create_database("db")
        world.create_table("old", "db", buckets=3)
        created = world.send_create("new", "db", buckets=3)
        dropped = send(world, "drop table", "db", "old")
        world.run(delay_ms)
        answered = dict(world.replies)
        world.crash()
        world.start()
        world.until(lambda world=world: world.machine.role is Role.ACTIVE)
        world.run(500)
        world.settled()

        tables = world.tables("db")
        assert "new" in tables or answered.get(created) is None
        assert "old" not in tables or answered.get(dropped) is None
        retried = world.create_table("new", "db", buckets=3)
        assert ("new" in tables) == (retried == E.TABLE_ALREADY_EXIST)


def test_a_coordinator_that_takes_over_leaves_no_answer_behind(world):
    """1. Our write's outcome is unknown. 2. Another coordinator is active: we shall never know.

    3. The client's connection is closed: any answer might be a lie.
    """
    request_id = world.send_create("t")
    world.run(0)
    world.registry.close(world.session)
    other = world.registry.open()
    node = layout.encode_active(9, "another", epoch=9)
    from flussd.core.registry.messages import Create, Multi

    world.registry._apply(other, Multi((Create(layout.ACTIVE, node, ephemeral=True),)))
    world.lose_session()
    world.run(300)

    assert Role.STANDBY is world.machine.role
    assert world.replies[request_id] is None


@pytest.mark.parametrize("number", range(1, 18))
def test_a_registry_without_room(world, number):
    """1. From some multi on the registry's disk is full. 2. Requests are refused with 70, and none is done.

    3. The coordinator stays active, under the same epoch. 4. With space all that is due happens.
    """
    epoch = world.machine.epoch
    world.registry.full_from = world.registry.multis + number
    refused = 0
    for what, database, table in STORY:
        before = exists(world, what, database, table)
        request_id = send(world, what, database, table)
        world.until(lambda request_id=request_id: request_id in world.replies)
        answer = world.replies[request_id]
        if isinstance(answer, tuple) and answer[0] == E.DISK_WRITE_LOCKED:
            refused += 1
            assert "its disk takes no more" in answer[1]
            assert before == exists(world, what, database, table)
    world.registry.full_from = 1 << 30

    assert (Role.ACTIVE, epoch) == (world.machine.role, world.machine.epoch)
    assert refused
    world.run(3_000)
    assert not world.machine.state.unmade
    assert not world.machine.state.unelected
    world.machine.check_all()
