"""The truths that a run holds answers against: what they take, and what they call broken."""

from __future__ import annotations

import pytest

from flussd.runtime_sim.clocks import EPOCH_MS
from flussd.runtime_sim.oracles.catalog import Presence
from flussd.runtime_sim.oracles.ledger import Ledger
from flussd.runtime_sim.oracles.partitions import Clock, PartitionTruth
from flussd.runtime_sim.oracles.schemas import SchemaTruth
from flussd.runtime_sim.oracles.violation import Violation
from flussd.runtime_sim.workload.batches import Identity
from flussd.runtime_sim.workload.tables import Partitioning, TableSpec, TimeRule

HOUR_MS = 3_600_000


def by_client():
    """The truth of a table whose partitions a client makes."""
    return PartitionTruth(TableSpec("t", 1, partitioning=Partitioning.BY_CLIENT), Clock(), {})


def test_a_list_is_judged_by_what_was_certain_all_the_time():
    """A partition that is made while a list is on its way may be in it, or not; later it has to be."""
    truth = by_client()
    before = truth.mark()
    truth.set("p", Presence.PRESENT)
    truth.listed([], before)

    with pytest.raises(Violation, match="CATALOG_IS_TRUE"):
        truth.listed([], truth.mark())
    truth.set("p", Presence.ABSENT)
    with pytest.raises(Violation, match="CATALOG_IS_TRUE"):
        truth.listed([(1, "p")], truth.mark())


def test_an_id_belongs_to_one_partition():
    """Of any table, and for ever."""
    truth = by_client()
    truth.has_id("p", 1)

    with pytest.raises(Violation, match="is that of t/p"):
        truth.has_id("q", 1)
    with pytest.raises(Violation, match="had id 1"):
        truth.has_id("p", 2)


def test_partitions_of_time_go_when_they_have_expired():
    """By the latest clock that the coordinator had, and no sooner."""
    rule = TimeRule("HOUR", "UTC", 0, 2, 1)
    truth = PartitionTruth(TableSpec("t", 1, time_rule=rule), Clock(), {})
    truth.clock.seen(EPOCH_MS)
    before = truth.mark()
    truth.listed([(1, "2025061514"), (2, "2025061515")], truth.mark())
    truth.listed([], before)  # a look that was held up on its way
    truth.clock.seen(EPOCH_MS + HOUR_MS)

    with pytest.raises(Violation, match="and it is kept"):
        truth.listed([(2, "2025061515")], truth.mark())
    truth.clock.seen(EPOCH_MS + 2 * HOUR_MS)
    truth.listed([(2, "2025061515")], truth.mark())
    with pytest.raises(Violation, match="is erased"):
        truth.erased(2)


def test_schemas():
    """One more for each column; what was seen stays; what was confirmed is there."""
    truth = SchemaTruth("t", {1: ("a",)})
    truth.maybes["b"] = truth.maybes["c"] = None
    truth.seen(3, ("a", "c", "b"), "somebody")

    assert {1: ("a",), 2: ("a", "c"), 3: ("a", "c", "b")} == truth.known
    for schema_id, columns in ((2, ("a", "b")), (4, ("a", "c", "b", "d")), (5, ("a", "c", "b"))):
        with pytest.raises(Violation, match="SCHEMAS_LAST"):
            truth.seen(schema_id, columns, "somebody")
    truth.added("d")
    with pytest.raises(Violation, match="lacks it"):
        truth.newest_seen(3, ("a", "c", "b"))


def test_a_dropped_bucket_may_lose_anything():
    """Its files are erased one after the other; a server that falls meanwhile finds some of them."""
    ledger = Ledger((1, 2, 0), None)
    ledger.power_lost, ledger.floor_offset = True, 5

    with pytest.raises(Violation, match="SYNCED_SURVIVES"):
        ledger.recovered(3, 0)
    ledger.power_lost = ledger.is_dropped = True
    ledger.recovered(3, 0)


def test_what_retention_gave_up_may_come_back():
    """A server that falls before a checkpoint says so finds the old files; they are read as before."""
    ledger, identity = Ledger((1, -1, 0), None), Identity(1, 0)
    ledger._known(0, 2, identity, 99)
    ledger.gave_up(2)
    ledger.recovered(2, 0)
    ledger._known(0, 2, identity, 99)

    assert (0, [0]) == (ledger.start_offset, list(ledger.entries))
    with pytest.raises(Violation, match="EXACTLY_ONCE"):
        ledger._known(2, 4, identity, 99)
