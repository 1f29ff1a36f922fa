"""The coordinator's life: becoming active, standing by, coming back, stopping."""

import attrs

from flussd.core.coordinator import layout
from flussd.core.coordinator.coordinator import Coordinator, Role
from flussd.core.machine import Fatal, Stopped, StopRequested
from flussd.core.registry import messages as r
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode


def test_the_table_is_total():
    """Every event has a handler for every role."""
    assert {len(Role)} == {len(row) for row in Coordinator.TABLE.values()}


def test_a_first_start(world):
    """1. The registry is empty. 2. Base nodes and the default database are there, and we are active."""
    assert ["active", "ready"] == world.states
    assert b"0" == world.registry.tree.nodes[layout.EPOCH].data
    assert ["fluss"] == world.registry.children(layout.DATABASES)
    assert ["fluss"] == list(world.ask(ApiKey.LIST_DATABASES).database_name)
    world.settled()


def test_ready_waits_for_the_tablet_servers(make_world):
    """1. Two are expected. 2. One is told the catalog: not ready. 3. The other one is, too: ready."""
    world = make_world(tablets=0)
    world.config = attrs.evolve(world.config, tablets_expected=2)
    world.crash()
    world.announced.clear()
    world.start()
    world.add_tablet(0)
    world.run(500)
    early = list(world.states)
    world.add_tablet(1)
    world.run(500)

    assert ["active"] == early
    assert ["active", "ready"] == world.states


def test_a_restart_loads_what_was_there(world):
    """1. Tables are made. 2. The process dies. 3. The next one knows all of it, in a later epoch."""
    world.create_database("db")
    world.create_table("t", buckets=3)
    world.create_table("u", "db")
    before = world.machine.state.catalog.digest()
    world.crash()
    world.start()
    world.until(lambda: world.machine.role is Role.ACTIVE)

    assert before == world.machine.state.catalog.digest()
    assert 1 == world.machine.epoch
    world.run(100)
    world.settled()


def test_a_former_process_of_the_same_directory_is_replaced(world):
    """1. The process dies; its active node stays. 2. The next one does not wait for its session to end."""
    world.crash()
    world.start()
    began_ms = world.now_ms
    world.until(lambda: world.machine.role is Role.ACTIVE)

    assert world.now_ms - began_ms < 100
    node = world.registry.tree.nodes[layout.ACTIVE]
    assert world.session == node.owner


def test_another_coordinator_is_waited_for(world):
    """1. The active node is another one's. 2. Requests get 65. 3. It goes: we take over."""
    other_session = world.session
    world.crash()
    world.directory_id = "another"
    world.start()
    world.run(100)
    standing_by = (world.machine.role, world.ask(ApiKey.LIST_DATABASES))
    world.registry.close(other_session)
    world.spread()
    world.run(100)

    assert (Role.STANDBY, ErrorCode.NOT_COORDINATOR_LEADER_EXCEPTION) == standing_by
    assert Role.ACTIVE is world.machine.role


def test_a_deposed_coordinator_writes_nothing(world):
    """1. Somebody bumps the epoch behind our back. 2. Our next write fails, and we load again.

    3. The write is made under the new epoch, and its client learns only that.
    """
    bump = r.Multi((r.SetData(layout.EPOCH, b"7"),))
    world.registry._apply(world.session, bump)
    answer = world.create_database("db")

    assert b"8" == world.registry.tree.nodes[layout.EPOCH].data
    assert answer is not None
    assert not isinstance(answer, int)
    assert "reloading" in world.states
    world.settled()


def test_a_lost_session(world):
    """1. The registry declares us dead. 2. We have a new session: active again, same tables."""
    world.create_table("t", buckets=2)
    world.lose_session()
    world.until(lambda: world.machine.role is Role.STARTING)
    world.until(lambda: world.machine.role is Role.ACTIVE)
    world.run(100)

    assert ["t"] == world.tables()
    assert world.session == world.registry.tree.nodes[layout.ACTIVE].owner
    world.settled()


def test_requests_wait_while_it_loads(make_world):
    """1. A request comes before the coordinator is active. 2. It is answered once it is."""
    world = make_world(tablets=0)
    world.crash()
    world.start()
    request_id = world.send(ApiKey.LIST_DATABASES, messages.ListDatabasesRequest())
    world.run(100)

    assert ["fluss"] == list(world.replies[request_id].database_name)


def test_a_foreign_registry_is_left_alone(make_world):
    """`/fluss` of somebody else, and a later format of ours, end the process and change nothing."""
    for path, level in ((layout.ROOT, None), (layout.FORMAT, 99)):
        world = make_world(tablets=0)
        world.crash()
        if level is None:
            world.registry.tree.nodes.clear()
            world.registry.__init__()
            world.registry._apply(0, r.Multi((r.Create(path),)))
        else:
            world.registry._apply(0, r.Multi((r.SetData(path, layout.encode({"level": level})),)))
        world.announced.clear()
        world.start()
        world.run(100)

        assert any(isinstance(one, Fatal) for one in world.announced)
        assert "active" not in world.states


def test_an_orderly_stop(world):
    """1. Stop. 2. The active node is gone, then Stopped. 3. What comes later is refused."""
    world.post(StopRequested())
    world.run(100)

    assert isinstance(world.announced[-1], Stopped)
    assert layout.ACTIVE not in world.registry.tree.nodes
    assert ErrorCode.NOT_COORDINATOR_LEADER_EXCEPTION == world.ask(ApiKey.LIST_DATABASES)


def test_a_stop_lets_the_change_in_flight_finish(world):
    """1. A table is being created when we stop. 2. Its client is told the truth before Stopped."""
    request_id = world.send_create("t")
    world.run(0)
    world.post(StopRequested())
    world.run(2000)

    assert isinstance(world.announced[-1], Stopped)
    assert "t" in world.registry.children(layout.tables_path("fluss"))
    assert not isinstance(world.replies[request_id], tuple)


def test_a_stop_ends_without_the_registry(world):
    """1. The registry does not answer any more. 2. Stopped all the same, after a second."""
    world.is_cut_off = True
    world.post(StopRequested())
    world.run(1500)

    assert isinstance(world.announced[-1], Stopped)


def test_a_stop_with_a_change_in_doubt_ends(world):
    """1. A creation is on its way and the registry falls silent. 2. Stopped, and nobody is told a lie.

    Found by seed 727 of the simulator: the check between steps did not allow it.
    """
    request_id = world.send_create("t")
    world.is_cut_off = True
    world.run(0)
    world.post(StopRequested())
    world.run(1500)

    assert isinstance(world.announced[-1], Stopped)
    assert world.replies.get(request_id) is None  # its connection is closed


def test_equal_histories_equal_digests(make_world):
    """Two worlds that live through the same have the same digest; a clone has it, and goes its own way."""
    one, two = make_world(), make_world()
    for world in (one, two):
        world.create_table("t", buckets=2)
        world.run(50)
    clone = one.machine.clone()
    before = clone.digest()
    one.create_database("db")

    assert two.machine.digest() == before == clone.digest()
    assert one.machine.digest() != before
    clone.check_all()
