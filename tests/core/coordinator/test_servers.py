"""Tablet servers come, go, come back and fall silent; leadership follows, in epochs that only grow."""

from flussd.core.coordinator import layout
from flussd.core.coordinator.coordinator import Role

KEY = (0, -1, 0)


def record(world, key=KEY):
    return world.machine.state.catalog.buckets[key]


def test_a_server_that_bounces(world):
    """1. It registers anew within its session. 2. It gets a new epoch for its buckets, and leads them."""
    world.create_table("t")
    before = record(world)
    tablet = world.tablets[0]
    tablet.kill()
    tablet.register()
    world.run(200)

    after = record(world)
    assert (0, tablet.incarnation) == (after.leader_id, after.leader_incarnation)
    assert after.leader_epoch > before.leader_epoch
    assert {KEY: after.leader_epoch} == tablet.leads
    world.settled()


def test_a_killed_server_is_decreed_dead(world):
    """1. Its process dies, its registration stays. 2. The connection is refused: the node is deleted.

    3. Its buckets have no leader. 4. It returns and leads again, two epochs later.
    """
    world.create_table("t", buckets=2)
    tablet = world.tablets[0]
    began_ms = world.now_ms
    tablet.kill()
    world.until(lambda: record(world).leader_id == -1)
    assert world.now_ms - began_ms < 50
    assert [] == world.registry.children(layout.SERVERS)
    assert 1 == record(world).leader_epoch
    tablet.register()
    world.run(100)

    assert (0, 2) == (record(world).leader_id, record(world).leader_epoch)
    world.settled()


def test_a_silent_server_is_decreed_dead(world):
    """1. It stops answering. 2. After three misses, 300 ms each, its registration is deleted."""
    world.create_table("t")
    tablet = world.tablets[0]
    tablet.is_frozen = True
    began_ms = world.now_ms
    world.until(lambda: record(world).leader_id == -1)

    assert 800 <= world.now_ms - began_ms <= 1100
    assert [] == world.registry.children(layout.SERVERS)


def test_a_server_that_was_slow_once_lives(world):
    """1. It is silent for two misses. 2. It answers. 3. Misses are forgotten."""
    tablet = world.tablets[0]
    world.run(150)
    tablet.is_frozen = True
    world.run(700)
    tablet.is_frozen = False
    tablet.answer_polls()
    world.run(700)

    assert ["0"] == world.registry.children(layout.SERVERS)
    assert 0 == world.machine.links.links[0].misses


def test_a_server_that_leaves_in_order(world):
    """1. It deletes its registration. 2. Its buckets have no leader; clients see no such node."""
    world.create_table("t")
    world.tablets[0].unregister()
    world.run(100)

    assert -1 == record(world).leader_id
    assert {} == world.machine.state.catalog.nodes
    assert {} == world.machine.links.links


def test_a_server_that_does_not_know_its_registration(world):
    """1. A dead process's node stands; the new one answers that it is not meant. 2. It is decreed dead."""
    world.create_table("t")
    tablet = world.tablets[0]
    tablet.incarnation = -1
    world.until(lambda: record(world).leader_id == -1, ms=3000)

    assert [] == world.registry.children(layout.SERVERS)


def test_many_buckets_change_hands_in_chunks(world):
    """A server with more buckets than one write takes: all of them follow it."""
    world.create_table("t", buckets=600)
    tablet = world.tablets[0]
    tablet.kill()
    world.until(lambda: all(one.leader_id == -1 for one in world.machine.state.catalog.buckets.values()))
    tablet.register()
    world.run(500)

    assert 600 == len(tablet.leads)
    world.settled()


def test_a_link_breaks(world):
    """1. The connection breaks while things change. 2. A new one begins with a whole snapshot."""
    tablet = world.tablets[0]
    for number in range(20):
        world.send_create(f"t{number}")
        world.run(1)
        world.break_links(tablet)
        world.run(3)
    world.run(500)

    assert 20 == len(world.tables())
    assert ["0"] == world.registry.children(layout.SERVERS)
    world.settled()


def test_a_server_that_comes_later_is_told_everything(world):
    """1. Tables are made. 2. A second server comes. 3. It knows all, and new tables use it."""
    world.create_database("db")
    world.create_table("t", "db", buckets=700)
    tablet = world.add_tablet(1)
    world.run(200)
    assert tablet.complete
    assert world.machine.state.catalog.digest() == tablet.catalog.digest()
    world.create_table("u", buckets=2)

    assert {(1, -1, 0)} == set(tablet.leads)
    world.settled()


def test_a_newer_coordinator_is_heard_of(world):
    """1. A server knows of a later epoch. 2. We load again, under an epoch that is later still."""
    world.tablets[0].epoch = 5
    world.registry._apply(world.session, _bump("5"))
    world.run(1000)

    assert Role.ACTIVE is world.machine.role
    assert 6 == world.machine.epoch
    world.run(500)
    world.settled()


def _bump(epoch):
    from flussd.core.registry.messages import Multi, SetData

    return Multi((SetData(layout.EPOCH, epoch.encode()),))


def test_epochs_only_grow(world):
    """Over bounces, kills and restarts of the coordinator, no record goes back."""
    world.create_table("t")
    seen = []
    tablet = world.tablets[0]
    for turn in range(6):
        if turn % 3 == 2:
            world.crash()
            world.start()
        elif turn % 3 == 1:
            tablet.kill()
        if not tablet.is_up or turn % 3 == 0:
            world.run(30 * turn)
            tablet.kill()
            tablet.register()
        world.run(400)
        node = world.registry.json(layout.record_path(KEY))
        seen.append((node["leader_epoch"], node["bucket_epoch"]))

    assert sorted(seen) == seen
    assert len(set(seen)) > 2
    world.run(500)
    world.settled()
