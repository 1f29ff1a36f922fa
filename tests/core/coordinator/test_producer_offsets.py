"""Producer offsets: the first registration counts, survives the coordinator, and ends at its time."""

from __future__ import annotations

import pytest

from flussd.core.coordinator import layout, producer_offsets
from flussd.core.coordinator.admin_records import PRODUCERS, ProducerRecord, producer_path
from flussd.core.coordinator.producers import Producers
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

CREATED, EXISTED = 0, 1


def table(*offsets, table_id=7):
    """Offsets of one table: (bucket, offset), or (partition, bucket, offset)."""
    made = messages.PbProducerTableOffsets(table_id=table_id)
    for *partition, bucket, offset in offsets:
        one = made.bucket_offsets.add(bucket_id=bucket, log_end_offset=offset)
        if partition:
            one.partition_id = partition[0]
    return made


def send(world, producer_id, *tables, ttl_ms=None):
    request = messages.RegisterProducerOffsetsRequest(producer_id=producer_id, table_offsets=tables)
    if ttl_ms is not None:
        request.ttl_ms = ttl_ms
    return world.send(ApiKey.REGISTER_PRODUCER_OFFSETS, request)


def register(world, *arguments, **options):
    answer = world.answer(send(world, *arguments, **options))
    return answer if isinstance(answer, int) else answer.result


def get(world, producer_id):
    """What is registered, as plain tuples; None if nothing is."""
    answer = world.ask(ApiKey.GET_PRODUCER_OFFSETS, producer_id=producer_id)
    if not answer.HasField("producer_id"):
        return None
    assert producer_id == answer.producer_id
    return [
        (one.table_id, [(b.partition_id, b.bucket_id, b.log_end_offset) for b in one.bucket_offsets])
        for one in answer.table_offsets
    ]


def delete(world, producer_id):
    return world.ask(ApiKey.DELETE_PRODUCER_OFFSETS, producer_id=producer_id)


def nodes(world):
    """The producers in the registry; None when not even their parent is there."""
    return world.registry.children(PRODUCERS) if PRODUCERS in world.registry.tree.nodes else None


def test_the_first_registration_counts(world):
    """1. It is kept. 2. A second one is told so and changes nothing. 3. Deleted, the id is free again."""
    assert get(world, "p") is None
    assert CREATED == register(world, "p", table((0, 10)))
    assert EXISTED == register(world, "p", table((0, 99)))
    assert [(7, [(0, 0, 10)])] == get(world, "p")
    delete(world, "p")
    assert get(world, "p") is None
    assert not isinstance(delete(world, "p"), int)
    assert CREATED == register(world, "p", table((0, 5)))
    assert [(7, [(0, 0, 5)])] == get(world, "p")


def test_offsets_come_back_in_order(world):
    """By table, partition and bucket; the last of two counts, and tables without any are left out."""
    tables = (table((3, 1, 5), (0, 6), (0, 7)), table(table_id=9), table((2, 8), (1, 9), table_id=1))
    register(world, "p", *tables)

    assert [(1, [(0, 1, 9), (0, 2, 8)]), (7, [(0, 0, 7), (3, 1, 5)])] == get(world, "p")


@pytest.mark.parametrize("api", ["REGISTER", "GET", "DELETE"])
def test_ids_are_names(world, api):
    """Whatever is asked."""
    assert E.INVALID_PRODUCER_ID_EXCEPTION == world.ask(
        ApiKey[f"{api}_PRODUCER_OFFSETS"], producer_id="a/b"
    )


def test_they_survive_the_coordinator(world):
    """1. Registrations, one is deleted. 2. A crash. 3. The new process knows the rest, and its times."""
    for name in ("a", "b", "c"):
        register(world, name, table((0, ord(name)), (5, 1, 2)), ttl_ms=60_000)
    delete(world, "b")
    before = world.machine.state
    world.crash()
    world.start()

    assert EXISTED == register(world, "a", table((0, 1)))
    assert get(world, "b") is None
    assert [(7, [(0, 0, ord("c")), (5, 1, 2)])] == get(world, "c")
    assert before.producers.by_id == world.machine.state.producers.by_id
    world.settled()


def test_it_ends_at_its_time(world):
    """1. It is there until then. 2. The coordinator deletes it by itself, and the parent with the last."""
    register(world, "p", table((0, 1)), ttl_ms=5_000)
    register(world, "q", table((0, 1)), ttl_ms=9_000)
    world.run(4_900)

    assert get(world, "p") is not None
    assert ["p", "q"] == nodes(world)
    world.run(200)
    assert ["q"] == nodes(world)
    assert get(world, "p") is None
    world.run(4_000)
    assert nodes(world) is None
    world.settled()


def test_its_end_wakes_the_coordinator(make_world):
    """There are no tablet servers, and nothing else happens."""
    world = make_world(0)
    register(world, "p", ttl_ms=5_000)
    world.run(5_100)

    assert nodes(world) is None


def test_it_ends_though_the_coordinator_was_away(world):
    """What ended meanwhile is deleted by the next process."""
    register(world, "p", table((0, 1)), ttl_ms=50)
    world.crash()
    world.links.clear()
    world.run(1_000)
    assert ["p"] == nodes(world)
    world.start()
    assert get(world, "p") is None
    world.run(100)

    assert nodes(world) is None


def test_an_id_is_free_at_its_time(world, monkeypatch):
    """A registration before the old node went replaces it in one write."""
    monkeypatch.setattr(producer_offsets, "expire", lambda *_: None)
    register(world, "p", table((0, 1)), ttl_ms=50)
    world.run(100)

    assert ["p"] == nodes(world)
    assert get(world, "p") is None
    assert CREATED == register(world, "p", table((0, 2)))
    assert [(7, [(0, 0, 2)])] == get(world, "p")


def test_times_need_not_make_sense(world):
    """A lifetime below 0 is over at once, one beyond all bounds ends with them; a day is the default."""
    register(world, "past", ttl_ms=-5)
    register(world, "ever", ttl_ms=2**63 - 1)
    register(world, "day")
    world.run(100)
    records = world.machine.state.producers.by_id

    assert ["day", "ever"] == sorted(records)
    assert records["ever"].expires_ms == 2**63 - 1
    told = world.ask(ApiKey.GET_PRODUCER_OFFSETS, producer_id="day")
    assert abs(told.expiration_time - world.machine.wall_now_ms - 86_400_000) < 1_000


def test_many_end_at_once(world, monkeypatch):
    """They go in several writes."""
    monkeypatch.setattr(producer_offsets, "EXPIRED_MAX", 3)
    for number in range(10):
        register(world, f"p{number}", table((0, number)), ttl_ms=2_000)
    before = world.registry.multis
    world.run(3_000)

    assert nodes(world) is None
    assert world.registry.multis - before >= 4


def test_there_is_a_bound(world, monkeypatch):
    """One more than that is refused; a place that is free is taken."""
    monkeypatch.setattr(producer_offsets, "PRODUCERS_MAX", 2)

    assert [CREATED] * 2 == [register(world, name) for name in ("a", "b")]
    assert E.UNKNOWN_SERVER_ERROR == register(world, "c")
    assert EXISTED == register(world, "a")
    delete(world, "a")
    assert CREATED == register(world, "c")


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_every_write_may_be_lost(make_world, mode, which):
    """Of a registration, a deletion, a registration: the answers are the truth all the same."""
    world = make_world()
    setattr(world.registry, mode, world.registry.multis + which)
    results = [register(world, "p", table((0, 1)))]
    world.registry.apply_late()
    assert [(7, [(0, 0, 1)])] == get(world, "p")
    delete(world, "p")
    world.registry.apply_late()
    assert get(world, "p") is None
    results.append(register(world, "p", table((0, 2))))
    world.registry.apply_late()

    assert [CREATED] * 2 == results
    assert [(7, [(0, 0, 2)])] == get(world, "p")
    assert world.machine.epoch >= 1, "the loss was noticed"
    world.run(500)
    world.settled()


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
def test_the_deletion_of_what_ended_may_be_lost(world, mode):
    """It is found out, and done."""
    register(world, "p", ttl_ms=100)
    register(world, "q", ttl_ms=60_000)
    setattr(world.registry, mode, world.registry.multis + 1)
    world.run(150)
    world.registry.apply_late()
    world.run(1_000)

    assert ["q"] == nodes(world)
    assert world.machine.epoch >= 1


def test_the_node_is_readable(world):
    """Its JSON names the time, the tables and the change."""
    register(world, "p", table((0, 10)), ttl_ms=1_000)
    value = world.registry.json(producer_path("p"))

    assert [{"table_id": 7, "offsets": [[-1, 0, 10]]}] == value["tables"]
    assert {"version", "expiration_time", "tables", "change_id"} == value.keys()
    assert producer_path("p") == f"{layout.ROOT}/producers/p"


def test_ends_are_known_and_forgotten():
    """The next end is right after any puts and drops, and what is gone leaves little behind."""
    producers = Producers()
    for number in range(500):
        producers.put(ProducerRecord(f"p{number}", 1_000 - number, (), ""))
        if number % 3:
            producers.drop(f"p{number}")
        producers.check_all()
    for number in range(0, 500, 3):
        producers.drop(f"p{number}")
        left = [one.expires_ms for one in producers.by_id.values()]
        assert min(left, default=None) == producers.next_end_ms()

    assert len(producers._ends) == 0
    assert producers.ended(10_000, 5) == []
