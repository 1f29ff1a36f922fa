"""Restoring rows: a new leader folds its whole log before it serves the bucket; never a part of it."""

from __future__ import annotations

import pytest

from flussd.core import limits
from flussd.core.files import DiskError
from flussd.core.records.batch import heads_in
from flussd.core.tablet import buckets
from flussd.core.tablet.restore import Pace
from flussd.core.wire import private
from flussd.core.wire.errors import ErrorCode

INCARNATION = 55
FILE = f"buckets/9/0/{0:020d}.log"


class HeldReads:
    """Reads of the disk that wait until they are let go."""

    def __init__(self, disk):
        self.disk, self.read, self.held = disk, disk.read, []
        disk.read = lambda *asked: self.held.append(asked)

    def let_go(self, server):
        self.disk.read = self.read
        for asked in self.held:
            self.read(*asked)
        server.driver.run()


def filled(make_keyed, count=40, **config):
    """A table of 20 rows written over and over, in a server that is told of it again."""
    keyed = make_keyed(**config)
    keyed.tell()
    for n in range(count):
        keyed.put((n % 20, str(n)), writer_id=5, sequence=n)
    keyed.server.restart(orderly=True)
    return keyed


def expected(count=40):
    """The rows of `filled`."""
    return [(n, str(count - 20 + n)) for n in range(20)]


def reported(keyed):
    """The kinds of reports that the coordinator gets."""
    answer = keyed.server.answered(keyed.server.poll(0), private.AWAIT_REPORTS)
    return [report.kind for report in answer.reports] if answer is not None else []


def test_it_is_led_when_its_rows_are_there(make_keyed, memory_disk):
    """1. A read of the log is on its way: readers wait, writers are refused, nothing is reported.

    2. It ends: the coordinator is told, readers are answered.
    """
    keyed = filled(make_keyed)
    reads = HeldReads(memory_disk)
    keyed.tell(epoch=2)

    put, lookup = keyed.ask_put((1, "x")), keyed.ask_lookup(*range(20))
    assert "waits" == keyed.looked_up(lookup)
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == keyed.put_answer(put).error_code
    assert [] == reported(keyed)
    keyed.tell(epoch=2)
    assert [] == reported(keyed)
    reads.let_go(keyed.server)
    assert expected() == keyed.looked_up(lookup)
    assert [private.LEADING] == reported(keyed)
    assert keyed.put((1, "x")).log_end_offset
    keyed.tell(epoch=2)
    assert [private.LEADING] == reported(keyed)


def test_no_put_overtakes_a_refused_one(make_keyed, memory_disk):
    """1. A put is refused, the answer is held. 2. Rows are there. 3. The writer's next put is refused."""
    keyed = filled(make_keyed)
    reads = HeldReads(memory_disk)
    keyed.tell(epoch=2)
    asked = [keyed.ask_put((1, "x"), writer_id=5, sequence=40)]
    reads.let_go(keyed.server)
    asked.append(keyed.ask_put((1, "y"), writer_id=5, sequence=41))
    keyed.server.pass_ms(2 * limits.RETRY_HOLD_MS)

    refused = ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert [refused, refused] == [keyed.put_answer(one).error_code for one in asked]
    assert keyed.put((1, "x"), writer_id=5, sequence=40).log_end_offset


def test_readers_are_refused_after_a_while(make_keyed, memory_disk):
    """A restore may take long; a client asks another time."""
    keyed = filled(make_keyed)
    HeldReads(memory_disk)
    keyed.tell(epoch=2)

    lookup = keyed.ask_lookup(1)
    keyed.server.pass_ms(limits.TERM_COMMIT_HOLD_MS)
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == keyed.looked_up(lookup)


@pytest.mark.parametrize("slice_records", [1, 7, 256])
@pytest.mark.parametrize("read_bytes", [64, 100, 1000])
def test_any_slices(make_keyed, slice_records, read_bytes):
    """Reads end within batches and within heads; batches may be larger than a read; segments end."""
    keyed = filled(make_keyed, segment_bytes=500, restore_pace=Pace(read_bytes, slice_records))
    keyed.tell(epoch=2)

    assert expected() == keyed.lookup(*range(20))


WRONG = {
    "bit": "expected checksum",
    "offset": "expected offset 2, got 3",
    "short": "the file has",
    "read": "input/output error",
}


@pytest.mark.parametrize("damage", WRONG)
def test_what_cannot_be_read_is_not_served_in_part(make_keyed, memory_disk, damage):
    """A flipped bit, or an error of the disk: the replica is in trouble, until the file can be read."""
    keyed = filled(make_keyed)
    whole = bytes(memory_disk.files[FILE])
    match damage:
        case "bit":
            memory_disk.files[FILE][-100] ^= 1
        case "offset":
            second = [head.position for head in heads_in(memoryview(whole))][2]
            memory_disk.files[FILE][second] ^= 1
        case "short":
            del memory_disk.files[FILE][-10:]
        case "read":
            memory_disk.failures.append(("read", DiskError.IO))
    keyed.tell(epoch=2)

    lookup = keyed.ask_lookup(1)
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)
    assert ErrorCode.LOG_STORAGE_EXCEPTION == keyed.looked_up(lookup)
    assert [private.FAILED] == reported(keyed)
    announced = [str(one) for one in keyed.server.announced if "cannot restore the rows" in str(one)]
    assert [True] == [WRONG[damage] in one for one in announced]
    memory_disk.files[FILE][:] = whole
    keyed.server.pass_ms(3 * buckets.RETRY_AFTER_MS)
    assert expected() == keyed.lookup(*range(20))


def test_damage_is_looked_at_less_and_less_often(make_keyed, memory_disk):
    """Each fold of a damaged log takes time from others; once it is whole, it is found within 8 s."""
    keyed = filled(make_keyed)
    whole = bytes(memory_disk.files[FILE])
    memory_disk.files[FILE][-100] ^= 1
    keyed.tell(epoch=2)
    pauses = []
    for _ in range(8):
        began = keyed.server.clock.now
        tries = len([one for one in keyed.server.announced if "bucket troubled" in str(one)])
        while tries == len([one for one in keyed.server.announced if "bucket troubled" in str(one)]):
            keyed.server.pass_ms(100)
        pauses.append((keyed.server.clock.now - began) // buckets.RETRY_AFTER_MS)
    memory_disk.files[FILE][:] = whole
    keyed.server.pass_ms(16 * buckets.RETRY_AFTER_MS)

    assert [1, 2, 4, 8, 16, 16, 16, 16] == pauses
    assert expected() == keyed.lookup(*range(20))
    assert {} == keyed.server.machine.keyed.failures


def test_leadership_that_ends_meanwhile(make_keyed, memory_disk):
    """What is read for a former term is for nobody; the next term reads again."""
    keyed = filled(make_keyed)
    reads = HeldReads(memory_disk)
    keyed.tell(epoch=2)
    keyed.tell(epoch=3, leader=4)
    keyed.tell(epoch=4)

    reads.let_go(keyed.server)
    assert expected() == keyed.lookup(*range(20))
    assert [private.LEADING] == reported(keyed)


def test_others_wait_for_their_turn(make_keyed, memory_disk):
    """Only some buckets are folded at a time."""
    keyed = make_keyed()
    all_of_them = tuple(range(limits.RESTORES_AT_ONCE + 3))
    keyed.tell(buckets=all_of_them)
    for bucket in all_of_them:
        keyed.put((1, str(bucket)), bucket=bucket)
    keyed.server.restart(orderly=True)
    reads = HeldReads(memory_disk)
    keyed.tell(epoch=2, buckets=all_of_them)

    assert limits.RESTORES_AT_ONCE == len(reads.held)
    reads.let_go(keyed.server)
    assert [[(1, str(n))] for n in all_of_them] == [keyed.lookup(1, bucket=n) for n in all_of_them]


def test_a_bucket_may_be_told_before_its_table(make_keyed):
    """It is led when the table is known."""
    keyed = filled(make_keyed)
    keyed.server.tell(epoch=2, table_id=8, buckets=())
    update = private.UpdateCatalogRequest(
        coordinator_epoch=1, tablet_incarnation=INCARNATION, sequence=keyed.server.sequence + 1
    )
    update.buckets.add(
        table_id=9, bucket=0, leader_id=3, leader_incarnation=INCARNATION, leader_epoch=2, min_isr=1
    )
    keyed.server.call(private.UPDATE_CATALOG, update, connection=keyed.server.COORDINATOR)
    keyed.server.sequence += 1

    assert [] == reported(keyed)
    keyed.tell(epoch=2)
    assert expected() == keyed.lookup(*range(20))
    assert [private.LEADING] == reported(keyed)


def test_retention_spares_its_log(make_keyed):
    """The log is the only copy of the rows."""
    keyed = make_keyed(segment_bytes=200)
    keyed.properties["table.log.ttl"] = "1 ms"
    keyed.tell()
    for n in range(20):
        keyed.put((n, "x"))
    keyed.server.clock.now += 10_000
    keyed.server.poll(keyed.server.clock.wall_ms())
    keyed.put((0, "y"))

    keyed.server.machine.buckets.retain()
    assert 0 == keyed.server.machine.buckets.replicas[9, -1, 0].log.start_offset
