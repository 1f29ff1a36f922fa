"""The replica of a bucket: events in, effects out, over a disk in memory that may refuse."""

from __future__ import annotations

import itertools

import attrs
import pytest

from flussd.core import files as f
from flussd.core.files import DiskError
from flussd.core.log.segment import log_name
from flussd.core.machine import Continue, ContinueLater
from flussd.core.records.batch import build_batch, read_head, scan_produced
from flussd.core.replica import events as e
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Durability, ReplicaConfig, Role
from flussd.core.wire.errors import ErrorCode

FOLDER = "buckets/1/0"


class World:
    """One replica, its disk, and what it said."""

    def __init__(self, disk, make_files, **config):
        self.disk, self.make_files, self.config = disk, make_files, ReplicaConfig(**config)
        self.epoch = 0
        self.start()

    def start(self):
        """Begin anew from what the disk holds, as after the end of the process."""
        self.files, self.queue = self.make_files(self.disk)
        self.news, self.tickets = [], itertools.count(1)
        self.turns = []  # how much the disk had been asked when others had their turn
        counter = itertools.count(1)
        self.replica = Replica((1, -1, 0), FOLDER, self.config, lambda: next(counter))
        self.list_files()

    def list_files(self):
        sizes = {
            file.rpartition("/")[2]: len(data)
            for file, data in self.disk.files.items()
            if file.startswith(FOLDER)
        }
        self.step(e.FilesListed(sizes))

    def step(self, event):
        out = []
        self.replica.step(event, out)
        for item in out:
            if type(item).__module__ == f.__name__:
                self.files.perform(item)
            elif isinstance(item, ContinueLater):
                self.turns.append(len(self.disk.log))
                self.queue.append(Continue(item.token))
            else:
                self.news.append(item)
        while self.queue:
            self.step(self.queue.popleft())

    def lead(self):
        self.epoch += 1
        self.step(e.LeadershipGiven(self.epoch, 77))
        assert self.replica.role is Role.LEADER

    def append(self, *batches, acks=-1, wall_ms=1000, **more):
        """Append batches and return the answer, None while there is none."""
        data = bytearray(b"".join(batches))
        found = scan_produced(memoryview(data))
        ticket = next(self.tickets)
        records = memoryview(data)[: found.kept_bytes]
        self.step(e.AppendAsked(ticket, acks, records, found.heads, wall_ms, **more))
        return self.answer(ticket)

    def answer(self, ticket):
        answers = [n for n in self.news if isinstance(n, e.AppendAnswered) and n.ticket == ticket]
        assert len(answers) <= 1
        return answers[0] if answers else None

    def stored(self):
        """Return (base offset, records, writer, sequence) of every batch on the disk, in order."""
        found = []
        for file in sorted(self.disk.files):
            if not file.endswith(".log"):
                continue
            view, at = memoryview(bytes(self.disk.files[file])), 0
            while at < len(view):
                head = read_head(view, at)
                found.append((head.base_offset, head.record_count, head.writer_id, head.batch_sequence))
                at += head.size_bytes
        return found


def batch(sequence=-1, count=1, writer_id=-1, payload=b"x"):
    """Return one batch."""
    return build_batch(payload, record_count=count, writer_id=writer_id, batch_sequence=sequence)


@pytest.fixture
def world(memory_disk, make_files):
    return World(memory_disk, make_files)


def test_offsets_and_times_are_stamped(world):
    """1. Two requests, the second with two batches; 2. bases follow on; 3. time never goes back."""
    world.lead()
    first = world.append(batch(count=3), wall_ms=1000)
    second = world.append(batch(count=2), batch(count=1), wall_ms=900)

    assert (0, 3) == (first.base_offset, second.base_offset)
    assert [0, 3, 5] == [base for base, *_ in world.stored()]
    assert (6, 6) == (world.replica.log.end_offset, world.replica.high_watermark)
    assert world.replica.log.active.max_timestamp_ms == 1000


def test_the_epoch_is_durable_before_its_first_batch(world):
    """The checkpoint with the new entry is replaced, with its syncs, before the role changes."""
    world.disk.log.clear()
    world.lead()

    writes = [line for line in world.disk.log if line.split()[0] in ("sync", "rename", "sync_folder")]
    assert ["sync", "rename", "sync"] == [line.split()[0] for line in writes[:3]]
    assert "sync_folder " in world.disk.log[-1]
    assert [(1, 0)] == world.replica.epochs.entries


def test_nobody_appends_who_does_not_lead(world):
    """Before the grant, and after it was taken."""
    assert world.append(batch()).code is ErrorCode.NOT_LEADER_OR_FOLLOWER
    world.lead()
    assert world.append(batch()).code is ErrorCode.NONE
    world.step(e.LeadershipTaken())
    assert world.append(batch()).code is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert 1 == len(world.stored())


def test_duplicates_get_their_offsets_and_gaps_are_refused(world):
    """A retried batch is not stored again; after a restart neither; a gap is 31 with both numbers."""
    world.lead()
    for sequence in range(3):
        world.append(batch(sequence, count=2, writer_id=9))
    assert 2 == world.append(batch(1, count=2, writer_id=9)).base_offset
    world.start()
    world.lead()

    assert 4 == world.append(batch(2, count=2, writer_id=9)).base_offset
    gap = world.append(batch(4, count=2, writer_id=9))
    assert gap.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION
    assert "expected sequence 3, got 4" in gap.text
    assert 3 == len(world.stored())


def test_a_batch_behind_a_duplicate_is_appended(world):
    """A writer that lost an answer groups anew: 1. what is there is not stored again; 2. the rest is.

    Found by seed 17 of the simulator: the whole request was acknowledged as a duplicate.
    """
    world.lead()
    for sequence in range(2):
        world.append(batch(sequence, count=2, writer_id=9))

    assert 2 == world.append(batch(1, count=2, writer_id=9), batch(2, count=3, writer_id=9)).base_offset
    assert [(0, 2, 9, 0), (2, 2, 9, 1), (4, 3, 9, 2)] == world.stored()
    assert 0 == world.append(*[batch(n, count=2, writer_id=9) for n in range(2)]).base_offset
    assert 3 == len(world.stored())


def test_a_gap_behind_a_duplicate_is_refused(world):
    """Nothing of such a request is stored, and its answer does not claim that it is."""
    world.lead()
    world.append(batch(0, writer_id=9))
    refused = world.append(batch(0, writer_id=9), batch(2, writer_id=9))

    assert refused.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION
    assert 1 == len(world.stored())


def test_a_refused_request_leaves_no_trace(world):
    """Two batches, the second out of order: the first is not remembered either."""
    world.lead()
    refused = world.append(batch(0, writer_id=9), batch(5, writer_id=9))

    assert refused.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION
    assert 0 == world.append(batch(0, writer_id=9)).base_offset
    assert [(0, 1, 9, 0)] == world.stored()


def test_a_failed_write_is_taken_back(world):
    """1. The disk is full in the middle of a batch; 2. the writer is told so; 3. the next one fits in."""
    world.lead()
    world.append(batch(0, writer_id=9))
    world.disk.failures.append(("write", DiskError.FULL))
    full = world.append(batch(1, writer_id=9))
    again = world.append(batch(1, writer_id=9))

    assert full.code is ErrorCode.DISK_WRITE_LOCKED
    assert "no space left" in full.text
    assert (ErrorCode.NONE, 1) == (again.code, again.base_offset)
    assert [(0, 1, 9, 0), (1, 1, 9, 1)] == world.stored()
    assert world.replica.role is Role.LEADER


def told(world, kind):
    """The news of one kind."""
    return [news for news in world.news if isinstance(news, kind)]


def test_who_asks_is_told_where_a_batch_is(world):
    """In the step that takes it into the log; duplicates and gaps are not, but the first one's end is."""
    world.lead()
    world.append(batch(0, count=3, writer_id=9))
    answer = world.append(batch(1, count=2, writer_id=9), wants_place=True)
    assert [((1, -1, 0), 2, 3, 5)] == [attrs.astuple(news) for news in told(world, e.Appended)]
    assert (3, 5) == (answer.base_offset, answer.end_offset)
    world.append(batch(2, writer_id=9))

    again = world.append(batch(1, count=2, writer_id=9), wants_place=True)
    assert (3, 5) == (again.base_offset, again.end_offset)
    assert world.append(batch(9, writer_id=9), wants_place=True).code
    assert 1 == len(told(world, e.Appended))


def test_a_cut_is_told(world):
    """With the end that the log has then, before anything is appended again."""
    world.lead()
    world.append(batch(count=3))
    world.disk.failures.append(("write", DiskError.FULL))
    world.append(batch(), wants_place=True)
    world.append(batch(), wants_place=True)

    kinds = [type(news) for news in world.news if isinstance(news, e.Appended | e.LogCut)]
    assert [e.Appended, e.LogCut, e.Appended] == kinds
    assert [e.LogCut((1, -1, 0), 3)] == told(world, e.LogCut)


def test_rows_that_cannot_be_folded_end_the_term(world):
    """1. Whoever folds the log says so; 2. nothing is led; 3. the replica begins again from its files."""
    world.lead()
    world.append(batch(count=3))
    world.step(e.RowsUnreadable("a bad batch"))

    assert [e.LeadershipLeft, e.Troubled] == [type(news) for news in world.news[-2:]]
    assert "a bad batch" == told(world, e.Troubled)[0].text
    assert world.append(batch()).code is ErrorCode.LOG_STORAGE_EXCEPTION
    world.step(e.RetryDue())
    world.list_files()
    assert world.replica.role is Role.LEADER
    assert 3 == world.append(batch()).base_offset


def test_a_full_disk_has_one_code(world, monkeypatch):
    """What comes while the failed write is still being cut is refused as that write was: with 70."""
    world.lead()
    world.disk.failures.append(("write", DiskError.FULL))
    held = []
    monkeypatch.setattr(world.disk, "truncate", lambda *asked: held.append(asked))
    full = world.append(batch(0, writer_id=9))
    meanwhile = world.append(batch(0, writer_id=9))

    assert 1 == len(held)
    assert (ErrorCode.DISK_WRITE_LOCKED, full.text) == (meanwhile.code, meanwhile.text)
    assert full.code is meanwhile.code


def test_when_even_the_cut_fails_it_begins_again(world):
    """Trouble, then after the pause: the cut, the recovery, the same epoch; nothing is lost or doubled."""
    world.lead()
    world.append(batch(0, writer_id=9))
    world.disk.failures.extend([("write", DiskError.IO), ("truncate", DiskError.IO)])
    assert world.append(batch(1, writer_id=9)).code is ErrorCode.LOG_STORAGE_EXCEPTION
    assert world.replica.role is Role.TROUBLED
    assert any(isinstance(n, e.Troubled) for n in world.news)
    assert world.append(batch(1, writer_id=9)).code is ErrorCode.LOG_STORAGE_EXCEPTION

    for _ in range(3):
        world.step(e.RetryDue())
        if isinstance(world.news[-1], e.ListingWanted):
            world.list_files()
    assert world.replica.role is Role.LEADER
    assert 1 == world.append(batch(1, writer_id=9)).base_offset
    assert [(0, 1, 9, 0), (1, 1, 9, 1)] == world.stored()


def test_group_fsync_acknowledges_after_the_sync(memory_disk, make_files):
    """acks=1 after the write, acks=-1 after the sync; a failed sync acknowledges nothing."""
    world = World(memory_disk, make_files, durability=Durability.GROUP_FSYNC)
    world.lead()
    world.disk.log.clear()
    assert 0 == world.append(batch(0, writer_id=9)).base_offset
    assert world.disk.log.index(f"write {FOLDER}/{0:020d}.log") < world.disk.log.index(
        f"sync {FOLDER}/{0:020d}.log"
    )

    world.disk.failures.append(("sync", DiskError.IO))
    assert world.append(batch(1, writer_id=9)).code is ErrorCode.LOG_STORAGE_EXCEPTION
    assert world.replica.role is Role.TROUBLED
    for _ in range(3):
        world.step(e.RetryDue())
        if isinstance(world.news[-1], e.ListingWanted):
            world.list_files()
    assert (Role.LEADER, 2) == (world.replica.role, world.replica.high_watermark)
    assert 1 == world.append(batch(1, writer_id=9)).base_offset


def test_segments_roll_and_recover(memory_disk, make_files):
    """Small segments: many files, indexes, a checkpoint at each roll; all is there after a restart."""
    world = World(memory_disk, make_files, segment_bytes=300)
    world.lead()
    for sequence in range(20):
        world.append(batch(sequence, count=2, writer_id=9, payload=b"y" * 40))
    before = world.stored()
    assert len(world.replica.log.segments) > 5
    world.start()
    world.lead()

    assert before == world.stored()
    assert (40, 40) == (world.replica.log.end_offset, world.replica.high_watermark)
    assert 38 == world.append(batch(19, count=2, writer_id=9, payload=b"y" * 40)).base_offset


@pytest.mark.parametrize("read_bytes", [64, 200])
def test_others_have_their_turn_between_two_reads_of_a_recovery(memory_disk, make_files, read_bytes):
    """Without a checkpoint all is looked at; a step reads once, and then waits for its turn."""
    world = World(memory_disk, make_files, recovery_read_bytes=read_bytes)
    world.lead()
    for sequence in range(20):
        world.append(batch(sequence, count=2, writer_id=9, payload=b"y" * 40))
    before, size_bytes = world.stored(), len(memory_disk.files[f"{FOLDER}/{log_name(0)}"])
    world.start()

    assert before == world.stored()
    assert len(world.turns) >= size_bytes // (read_bytes + 200)
    for begin, end in itertools.pairwise(world.turns):
        assert 1 == sum(line.startswith("read ") for line in memory_disk.log[begin:end])


@pytest.mark.parametrize("seed", range(60))
def test_a_torn_tail_is_cut_at_the_last_whole_batch(memory_disk, make_files, seed):
    """Cut or corrupt the last file anywhere: what is before is there, and writing goes on behind it."""
    world = World(memory_disk, make_files, segment_bytes=1000)
    world.lead()
    for sequence in range(12):
        world.append(batch(sequence, count=2, writer_id=9, payload=bytes(50 + sequence)))
    before = world.stored()
    last = max(file for file in world.disk.files if file.endswith(".log"))
    data = world.disk.files[last]
    checkpointed = world.replica.durable.base.end[2]  # what lies before is believed until it is read
    at = checkpointed + seed * 7919 % (len(data) - checkpointed)
    if seed % 2:
        del data[at:]
    else:
        data[at] ^= 1 << seed % 8
    stamp = at - _start_of(data, at) < 21 and seed % 2 == 0
    world.start()
    world.lead()
    after = world.stored()

    assert before[: len(after)] == after
    assert len(after) >= len(before) - 8
    if not stamp:  # what a leader stamps lies outside the checksum
        sequence = after[-1][3] + 1
        assert after[-1][0] + 2 == world.append(batch(sequence, count=2, writer_id=9)).base_offset


def _start_of(data, wanted):
    at = 0
    while at < len(data):
        head = read_head(memoryview(bytes(data)), at)
        if head is None or at + head.size_bytes > wanted:
            return at
        at += head.size_bytes
    return at


def test_retention_gives_up_old_segments_and_never_the_newest_offset(memory_disk, make_files):
    """Old segments go, readers begin later; when all is old a new, empty segment keeps the offset."""
    world = World(memory_disk, make_files, segment_bytes=300)
    world.lead()
    for sequence in range(20):
        world.append(batch(sequence, writer_id=9, payload=b"y" * 40), wall_ms=1000 + sequence)
    world.step(e.RetentionDue(1010))
    assert 0 < world.replica.log.start_offset <= 10
    world.step(e.RetentionDue(5000))

    assert (20, 20) == (world.replica.log.start_offset, world.replica.log.end_offset)
    assert [] == world.stored()
    world.start()
    world.lead()
    assert (20, 20) == (world.replica.log.start_offset, world.replica.log.end_offset)
    assert 19 == world.append(batch(19, writer_id=9, payload=b"y" * 40)).base_offset
    assert 20 == world.append(batch(20, writer_id=9)).base_offset


def test_the_table_is_total():
    """Every event has a handler for every role."""
    assert len(Role) == 5
    for event, row in Replica.TABLE.items():
        assert len(Role) == len(row), event
        assert all(callable(handler) for handler in row)


def test_a_checkpoint_on_request_makes_the_next_start_scan_nothing(world):
    """An orderly stop: the checkpoint's end is the log's end."""
    world.lead()
    world.append(batch(0, writer_id=9))
    world.step(e.CheckpointAsked())
    assert any(isinstance(n, e.CheckpointDone) for n in world.news)
    world.start()

    assert 0 == world.replica.bytes_since_checkpoint
    assert 1 == world.replica.log.end_offset
    assert world.replica.writers.expected(9) == 1


def test_a_checkpoint_that_fails_is_told_until_one_is_written(world):
    """Nobody is refused for it, but the next start has more to read: somebody should look at the disk."""
    world.lead()

    def told(error=None):
        world.append(batch(0))
        if error is not None:
            world.disk.failures.append(("rename", error))
        world.news.clear()
        world.step(e.CheckpointAsked())
        assert any(isinstance(n, e.CheckpointDone) for n in world.news)
        return [n.text for n in world.news if isinstance(n, e.CheckpointFailed)]

    assert ["cannot write it: no space left on the disk"] == told(DiskError.FULL)
    assert [] == told(DiskError.FULL)
    assert [] == told()
    assert ["cannot write it: permission denied"] == told(DiskError.DENIED)


def test_a_sync_that_fails_with_page_cache_is_told(memory_disk, make_files):
    """It ends the checkpoints of this process, and nothing else."""
    world = World(memory_disk, make_files, durability=Durability.PAGE_CACHE)
    world.lead()
    world.append(batch(0))
    world.disk.failures.append(("sync", DiskError.IO))
    world.step(e.CheckpointAsked())

    assert [e.CheckpointFailed(world.replica.key, "cannot make the log durable")] == [
        n for n in world.news if isinstance(n, e.CheckpointFailed)
    ]
    assert 1 == world.append(batch(0)).base_offset
