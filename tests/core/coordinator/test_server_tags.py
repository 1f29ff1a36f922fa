"""Server tags and rebalance: what is kept, what it does to new replicas, and what is refused."""

from __future__ import annotations

import pytest

from flussd.core.coordinator.admin_records import REBALANCE, SERVER_TAGS, ServerTag
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

GONE, AWAY = ServerTag.PERMANENT_OFFLINE, ServerTag.TEMPORARY_OFFLINE
REPLICAS, LEADERS, RACKS = range(3)


def add(world, *server_ids, tag=GONE):
    answer = world.ask(ApiKey.ADD_SERVER_TAG, server_ids=server_ids, server_tag=tag)
    return answer if isinstance(answer, int) else 0


def remove(world, *server_ids, tag=GONE):
    answer = world.ask(ApiKey.REMOVE_SERVER_TAG, server_ids=server_ids, server_tag=tag)
    return answer if isinstance(answer, int) else 0


def homes(world, name):
    """The servers of a table's replicas, in order."""
    table_id = world.machine.state.catalog.tables["fluss", name].table_id
    return sorted(
        {server for replicas in world.machine.state.assignments[table_id, -1] for server in replicas}
    )


def rebalance(world, *goals):
    """The id of a new rebalance, or the code of its refusal."""
    answer = world.ask(ApiKey.REBALANCE, goals=goals)
    return answer if isinstance(answer, int) else answer.rebalance_id


def progress(world, **which):
    answer = world.ask(ApiKey.LIST_REBALANCE_PROGRESS, **which)
    if isinstance(answer, int):
        return answer
    return (answer.rebalance_id, answer.rebalance_status) if answer.HasField("rebalance_id") else None


def test_a_server_has_one_tag(make_world):
    """Another one is refused, and so is the removal of another one: for all servers of a request."""
    world = make_world(2)

    assert 0 == add(world, 0)
    assert 0 == add(world, 0)
    assert E.SEVER_TAG_ALREADY_EXIST_EXCEPTION == add(world, 1, 0, tag=AWAY)
    assert ((0, GONE),) == world.machine.state.tags.tags
    assert E.SEVER_TAG_NOT_EXIST_EXCEPTION == remove(world, 1, 0, tag=AWAY)
    assert 0 == remove(world, 1, 0)
    assert () == world.machine.state.tags.tags
    assert 0 == remove(world, 1, 0)


def test_only_what_is_registered_is_tagged(world):
    """An unknown server is refused (58), its tag may be removed; the tag itself is looked at first."""
    assert E.SERVER_NOT_EXIST_EXCEPTION == add(world, 0, 77)
    assert 0 == remove(world, 77)
    assert E.UNKNOWN_SERVER_ERROR == add(world, 77, tag=9)
    assert E.UNKNOWN_SERVER_ERROR == remove(world, tag=9)
    assert 0 == add(world)
    assert SERVER_TAGS not in world.registry.tree.nodes


def test_tags_survive_server_and_coordinator(make_world):
    """1. Two tags. 2. A server goes, the coordinator crashes. 3. They are known, and can be removed."""
    world = make_world(2)
    add(world, 0)
    add(world, 1, tag=AWAY)
    world.tablets[1].unregister()
    world.crash()
    world.start()
    assert 0 == add(world, 0)
    world.run(500)

    assert ((0, GONE), (1, AWAY)) == world.machine.state.tags.tags
    assert 0 == remove(world, 1, tag=AWAY)
    assert {"0": 0} == world.registry.json(SERVER_TAGS)["server_tags"]


@pytest.mark.parametrize(("tag", "expected"), [(GONE, [1]), (AWAY, [0, 1])])
def test_the_permanently_offline_get_no_new_replicas(make_world, tag, expected):
    """Of tables; what is there stays. The temporarily offline get some."""
    world = make_world(2)
    world.create_table("before", buckets=2)
    add(world, 0, tag=tag)
    world.create_table("after", buckets=2)

    assert [0, 1] == homes(world, "before")
    assert expected == homes(world, "after")


def test_without_servers_for_replicas_no_table_is_made(world):
    """All are offline for good: 17, as without any."""
    add(world, 0)
    assert E.INVALID_REPLICATION_FACTOR == world.create_table()
    remove(world, 0)

    assert not isinstance(world.create_table(), int)


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
def test_every_write_may_be_lost(make_world, mode):
    """Of a tag, its removal, a rebalance, another one: the answers are the truth all the same."""
    for which in range(1, 5):
        world = make_world()
        setattr(world.registry, mode, world.registry.multis + which)
        found = []
        for what in (add, remove):
            found.append(what(world, 0))
            world.registry.apply_late()
            found.append(len(world.machine.state.tags.tags))
        assert [0, 1, 0, 0] == found
        for _ in range(2):
            known = rebalance(world)
            world.registry.apply_late()
            assert (known, 3) == progress(world)
        world.run(500)
        assert known == world.registry.json(REBALANCE)["rebalance_id"]
        assert world.machine.epoch >= 1, "the loss was noticed"
        world.settled()


def test_nothing_to_move_is_complete_at_once(world):
    """1. There was none. 2. It is complete. 3. A crash keeps it. 4. Another one has another id."""
    assert progress(world) is None
    world.create_table(buckets=3)
    first = rebalance(world, REPLICAS, LEADERS)
    assert (first, 3) == progress(world) == progress(world, rebalance_id=first)
    world.crash()
    world.start()
    assert (first, 3) == progress(world)
    second = rebalance(world, RACKS)

    assert first != second
    assert (second, 3) == progress(world)
    assert E.NO_REBALANCE_IN_PROGRESS_EXCEPTION == progress(world, rebalance_id=first)


def test_what_would_have_to_move_is_refused(make_world):
    """All replicas on one of two servers: 61, and the last rebalance stays what it was."""
    world = make_world(2)
    known = rebalance(world, REPLICAS)
    add(world, 0)
    world.create_table(buckets=4)
    remove(world, 0)

    assert E.REBALANCE_FAILURE_EXCEPTION == rebalance(world, REPLICAS)
    assert E.REBALANCE_FAILURE_EXCEPTION == rebalance(world, RACKS, LEADERS)
    assert (known, 3) == progress(world)
    assert isinstance(rebalance(world, RACKS), str)
    add(world, 1, tag=AWAY)
    assert E.REBALANCE_FAILURE_EXCEPTION == rebalance(world, RACKS)
    assert isinstance(rebalance(world), str)


def test_a_server_with_too_many_is_enough(make_world):
    """Of 12 replicas on three servers 6 are on one: the others have as few as they may."""
    world = make_world(3)
    world.create_table("even", buckets=9)
    add(world, 1, 2)
    world.create_table("odd", buckets=3)
    remove(world, 1, 2)

    assert E.REBALANCE_FAILURE_EXCEPTION == rebalance(world, LEADERS)


def test_everybody_offline_is_no_place_to_move_to(world):
    """As the Java server, if there are goals."""
    add(world, 0, tag=AWAY)

    assert E.REBALANCE_FAILURE_EXCEPTION == rebalance(world, RACKS)
    assert isinstance(rebalance(world), str)


@pytest.mark.parametrize(("buckets", "is_even"), [((5,), True), ((3, 3, 3), True), ((2, 2, 2, 2), True)])
def test_what_is_spread_round_robin_is_even(make_world, buckets, is_even):
    """Over three servers: one more or less is no reason to move."""
    world = make_world(3)
    for number, count in enumerate(buckets):
        world.create_table(f"t{number}", buckets=count)

    assert is_even == isinstance(rebalance(world, REPLICAS, LEADERS), str)


def test_goals_and_ids_must_be_known(world):
    """Unknown goals are -1; an id that is not that of the last rebalance is 62; without one it is that."""
    assert E.UNKNOWN_SERVER_ERROR == rebalance(world, 77)
    assert E.NO_REBALANCE_IN_PROGRESS_EXCEPTION == progress(world, rebalance_id="x")
    assert E.NO_REBALANCE_IN_PROGRESS_EXCEPTION == world.ask(ApiKey.CANCEL_REBALANCE, rebalance_id="x")
    assert not isinstance(world.ask(ApiKey.CANCEL_REBALANCE), int)
    known = rebalance(world)
    assert not isinstance(world.ask(ApiKey.CANCEL_REBALANCE, rebalance_id=known), int)
    assert (known, 3) == progress(world)
