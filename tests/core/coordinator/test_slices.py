"""Work over hundreds of buckets is done in slices: others get their turn, and may upset everything.

A table of 300 buckets is dropped, made or moved; in the middle of that something happens.
"""

from __future__ import annotations

import heapq

import pytest

from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

BUCKETS = 300


def next_event(world):
    """Let one thing happen."""
    world.now_ms, _, call, arguments = heapq.heappop(world.heap)
    call(*arguments)


def run_to(world, condition):
    """Stop between two slices."""
    for _ in range(20_000):
        if condition():
            return
        next_event(world)
    raise AssertionError("it never came true")


def is_closing(world):
    """In the middle of what follows from a drop."""
    closing = world.machine.state.closing
    return any(0 < first < BUCKETS for first in closing.values())


def is_applying(world):
    """In the middle of changes that are confirmed."""
    return world.machine.pipeline.applied_count > 0


def start_drop(world):
    path = messages.PbTablePath(database_name="fluss", table_name="t")
    world.send(ApiKey.DROP_TABLE, messages.DropTableRequest(table_path=path, ignore_if_not_exists=False))
    run_to(world, lambda: is_closing(world))


def start_create(world):
    world.send_create(buckets=BUCKETS)
    run_to(world, lambda: is_applying(world))


def crash(world):
    world.crash()
    world.start()


def lose_session(world):
    world.lose_session()


def lose_server(world):
    world.tablets[1].kill()
    world.tablets[1].unregister()
    world.run(10)
    world.tablets[1].register()


def meet_server(world):
    world.add_tablet(2)


def move_server(world):
    world.tablets[0].unregister()
    world.tablets[0].register()


UPSETS = [crash, lose_session, lose_server, meet_server, move_server]


@pytest.mark.parametrize("upset", UPSETS)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_drop_may_be_upset(make_world, upset, after):
    """1. Some of the buckets are seen to. 2. Something happens. 3. All is erased, everywhere."""
    world = make_world(2)
    world.create_table(buckets=BUCKETS)
    world.create_table("other", buckets=2)
    world.run(500)
    start_drop(world)
    for _ in range(after):
        next_event(world)
    upset(world)
    world.run(5_000)

    world.settled()
    assert {"other"} == {table.name for table in world.machine.state.catalog.by_id.values()}
    assert 2 == len(world.machine.state.catalog.buckets)
    assert BUCKETS == len({key for tablet in world.tablets.values() for key in tablet.erased})


@pytest.mark.parametrize("upset", UPSETS)
def test_a_creation_may_be_upset(make_world, upset):
    """The same while bucket records are made and taken in."""
    world = make_world(2)
    start_create(world)
    upset(world)
    world.run(5_000)

    world.settled()
    assert BUCKETS == len(world.machine.state.catalog.buckets)


def test_an_election_may_be_upset(make_world):
    """A server is back in the middle of the elections that its loss brought."""
    world = make_world(2)
    world.create_table(buckets=BUCKETS)
    world.run(500)
    world.tablets[1].kill()
    world.tablets[1].unregister()
    run_to(world, lambda: is_applying(world))
    world.tablets[1].register()
    world.run(5_000)

    world.settled()
    assert world.machine.state.is_led(0)


def test_others_get_their_turn(make_world):
    """A request that comes in the middle of a drop is answered before the drop is through."""
    world = make_world(1)
    world.create_table(buckets=BUCKETS)
    world.run(500)
    start_drop(world)
    request_id = world.send(ApiKey.LIST_DATABASES, messages.ListDatabasesRequest())
    run_to(world, lambda: request_id in world.replies)

    assert is_closing(world)


def test_a_step_does_a_slice(make_world):
    """No more buckets are seen to by one step than a slice has."""
    world = make_world(1)
    world.create_table(buckets=BUCKETS)
    world.run(500)
    start_drop(world)
    seen = [len(world.machine.state.dropping)]
    while world.machine.state.closing:
        next_event(world)
        seen.append(len(world.machine.state.dropping))

    assert BUCKETS == seen[-1]
    assert max(b - a for a, b in zip([0, *seen], seen, strict=False)) <= CoordinatorConfig().slice_buckets
