"""How a simulated writer sends again what was not acknowledged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flussd.runtime_sim.oracles.violation import Violation
from flussd.runtime_sim.workload.client import Answer, Place
from flussd.runtime_sim.workload.keyed_batches import SentPut
from flussd.runtime_sim.workload.upserter import Upserter
from flussd.runtime_sim.workload.writer import Lane, Writer


class Spy(Writer):
    """Notes what it would send."""

    __slots__ = ("runs",)

    def _send(self, _lane, run, _address):
        self.runs.append([batch.n for batch in run])


def sent_runs(*are_sent):
    """Return the runs that a writer sends of batches of which some are on their way."""
    writer = Spy.__new__(Spy)
    world = SimpleNamespace(now_us=0)
    writer.client = SimpleNamespace(world=world, leader_of=lambda _place, _bucket: "server")
    writer.config, writer.runs = SimpleNamespace(batches_per_request=2), []
    lane = Lane(Place("db", "t"), (1, -1, 0), None)
    lane.open.extend(SimpleNamespace(n=n, is_sent=is_sent) for n, is_sent in enumerate(are_sent))
    writer.pump(lane)
    return writer.runs


def test_the_batches_of_a_request_follow_each_other():
    """One that is on its way between two others parts them: a request with a gap is out of order."""
    assert [[0, 1], [2]] == sent_runs(False, False, False)
    assert [[0], [2, 3]] == sent_runs(False, True, False, False)
    assert [[1]] == sent_runs(True, False)


def a_put(n, targets=(), *, is_sent=False):
    """A put that is about some columns."""
    put = SentPut((9, n), 3, n, 1, (), (), -1, 0, b"", 0, targets=targets)
    put.is_sent = is_sent
    return put


def spreading(*puts_by_bucket, addresses, spreads=True):
    """Return what goes with the first put of bucket 0: bucket and number of each."""
    upserter = Upserter.__new__(Upserter)
    world = SimpleNamespace(now_us=10, count=lambda _what: None)
    upserter.client = SimpleNamespace(world=world, leader_of=lambda _place, bucket: addresses[bucket])
    upserter.config = SimpleNamespace(spreads=spreads)
    upserter.lanes = [Lane(Place("db", "t"), (1, -1, n), None) for n in range(len(puts_by_bucket))]
    for lane, puts in zip(upserter.lanes, puts_by_bucket, strict=True):
        lane.open.extend(puts)
    upserter.lanes[-1].not_before_us = 11
    first = upserter.lanes[0]
    parts = upserter._parts(first, [first.open[0]], addresses[0])
    return [(lane.bucket, *[put.sequence for put in run]) for lane, run in parts]


def test_puts_of_several_buckets_share_a_request():
    """The next one of each bucket at the same server, about the same columns, whose time has come."""
    puts = ([a_put(0)], [a_put(0, is_sent=True), a_put(1), a_put(2)], [a_put(0, (1, 0))], [], [a_put(0)])

    assert [(0, 0), (1, 1)] == spreading(*puts, addresses="aaaaa")
    assert [(0, 0)] == spreading(*puts, addresses="abaaa")
    assert [(0, 0)] == spreading(*puts, addresses="aaaaa", spreads=False)


def test_what_a_later_one_tells_is_as_old_as_its_acknowledgement():
    """A power cut may have taken both since then, though the batch itself was sent again behind it."""
    told, writer = [], Writer.__new__(Writer)
    writer.client = SimpleNamespace(note=lambda *_: None, world=SimpleNamespace(count=lambda *_: None))
    writer.config, writer.acked_count = SimpleNamespace(acks=-1), 0
    ledger = SimpleNamespace(
        acked=lambda *_: None,
        acked_behind=lambda batch, _, generation: told.append((batch.sequence, generation)),
    )
    lane = Lane(Place("db", "t"), (1, -1, 0), ledger)
    first, later = a_put(0), a_put(1)
    lane.open.extend((first, later))
    first.sent_generation = later.sent_generation = 2
    writer._acked(lane, [later], 7)
    first.sent_generation, first.was_oldest = 3, True

    writer._out_of_order(lane, first, "expected sequence 0")

    assert [(0, 2)] == told
    assert not lane.open


def test_each_bucket_of_a_request_is_answered():
    """By itself, in any order; one more, one less or one twice makes no sense."""
    writer = Writer.__new__(Writer)
    writer.client = SimpleNamespace(name="somebody")
    parts = [(Lane(Place("db", "t"), (1, -1, n), None), []) for n in (2, 0)]

    def told(*buckets):
        parts_told = [SimpleNamespace(bucket_id=n) for n in buckets]
        return list(writer._told(parts, Answer(SimpleNamespace(buckets_resp=parts_told))))

    assert [0, 2] == told(0, 2)
    assert {} == writer._told(parts, Answer(None, 7))
    for buckets in ((0,), (0, 2, 1), (0, 2, 2)):
        with pytest.raises(Violation, match="ANSWERS_MAKE_SENSE"):
            told(*buckets)
