"""Random stories of one replica: appends, failures of any operation, late and disordered completions.

Invariant tested: what was acknowledged is on the disk, in order, exactly once; offsets have no gap;
the watermark never passes what is written; every append is answered; and after the last trouble the
replica leads again.
"""

from __future__ import annotations

import itertools
import random
from functools import partial

import pytest

from flussd.core import files as f
from flussd.core.files import DiskError
from flussd.core.machine import Continue, ContinueLater
from flussd.core.records.batch import build_batch, crc_is_right, read_head, scan_produced
from flussd.core.replica import events as e
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Durability, ReplicaConfig, Role
from flussd.core.wire.errors import ErrorCode

FOLDER = "buckets/1/0"
OPERATIONS = ("write", "sync", "truncate", "rename", "remove", "read", "sync_folder")


class LateDisk:
    """Passes operations on in the order asked, and completes them late: in order for each file."""

    def __init__(self, disk, chance):
        self.disk, self.chance = disk, chance
        self.pending = {}  # file -> completions in order

    def _hold(self, file, call, *arguments):
        done = arguments[-1]

        def late(*result):
            self.pending.setdefault(file, []).append(lambda: done(*result))

        call(*arguments[:-1], late)

    def write(self, file, position, views, done):
        self._hold(file, self.disk.write, file, position, views, done)

    def read(self, file, position, size_bytes, done):
        self._hold(file, self.disk.read, file, position, size_bytes, done)

    def sync(self, file, done):
        self._hold(file, self.disk.sync, file, done)

    def sync_folder(self, folder, done):
        self._hold(folder, self.disk.sync_folder, folder, done)

    def truncate(self, file, size_bytes, done):
        self._hold(file, self.disk.truncate, file, size_bytes, done)

    def rename(self, old, new, done):
        self._hold(new, self.disk.rename, old, new, done)

    def remove(self, path, done):
        self._hold(path, self.disk.remove, path, done)

    def give_turn(self, done):
        self.pending.setdefault("", []).append(done)

    def complete_one(self):
        """Complete one operation of some file; return whether there was one."""
        files = sorted(file for file, waiting in self.pending.items() if waiting)
        if not files:
            return False
        self.pending[self.chance.choice(files)].pop(0)()
        return True


class Story:
    """One replica, one writer with up to five batches in flight, and a disk that may refuse."""

    def __init__(self, seed, disk, make_files):
        self.chance, self.disk, self.make_files = random.Random(seed), disk, make_files
        durability = self.chance.choice(list(Durability))
        segment_bytes = self.chance.choice([200, 700, 1 << 20])
        checkpoint_bytes = self.chance.choice([150, 1000, 1 << 20])
        read_bytes = random.Random(f"read {seed}").choice([64, 100, 1 << 18])
        self.config = ReplicaConfig(durability, segment_bytes, checkpoint_bytes, read_bytes)
        self.acked = {}  # sequence -> base offset
        self.next_sequence = 0
        self.unanswered = {}  # ticket -> sequence
        self.tickets, self.epoch = itertools.count(1), 0
        self.start()

    def start(self):
        self.late = LateDisk(self.disk, self.chance)
        self.files, self.queue = self.make_files(self.late)
        counter = itertools.count(1)
        self.replica = Replica((1, -1, 0), FOLDER, self.config, lambda: next(counter))
        self.unanswered.clear()
        self.retry = False
        self.list_files()
        self.give()

    def list_files(self):
        names = {file.rpartition("/")[2]: len(data) for file, data in self.disk.files.items()}
        self.step(e.FilesListed({name: size for name, size in names.items() if not name.endswith(".tmp")}))

    def give(self):
        self.epoch += 1
        self.step(e.LeadershipGiven(self.epoch, 7))

    def step(self, event):
        out = []
        self.replica.step(event, out)
        for item in out:
            if type(item).__module__ == f.__name__:
                self.files.perform(item)
            elif isinstance(item, ContinueLater):
                self.late.give_turn(partial(self.queue.append, Continue(item.token)))
            else:
                self.heard(item)
        while self.queue:
            self.step(self.queue.popleft())

    def heard(self, news):
        if isinstance(news, e.AppendAnswered):
            sequence = self.unanswered.pop(news.ticket)
            if news.code is ErrorCode.NONE:
                assert self.acked.setdefault(sequence, news.base_offset) == news.base_offset
        elif isinstance(news, e.Troubled):
            self.retry = True
        elif isinstance(news, e.ListingWanted):
            self.listing = True

    def append(self, sequence):
        data = bytearray(
            build_batch(b"%06d" % sequence * 5, record_count=2, writer_id=9, batch_sequence=sequence)
        )
        found = scan_produced(memoryview(data))
        ticket = next(self.tickets)
        self.unanswered[ticket] = sequence
        self.step(e.AppendAsked(ticket, -1, memoryview(data), found.heads, 1000))
        data[:] = bytes(len(data))  # the buffer is used again

    def settle(self):
        """Let everything in flight end, and troubles pass."""
        for _ in range(2000):
            while self.late.complete_one():
                while self.queue:
                    self.step(self.queue.popleft())
            if not self.retry:
                return
            self.begin_again()
        raise AssertionError("in trouble for ever")

    def begin_again(self):
        self.retry, self.listing = False, False
        self.step(e.RetryDue())
        if self.listing:
            self.list_files()

    def act(self):
        """Do one random thing."""
        roll = self.chance.random()
        if self.retry and roll < 0.3:
            self.begin_again()
        elif roll < 0.35:
            self.append_some()
        elif roll < 0.93:
            if self.late.complete_one():
                while self.queue:
                    self.step(self.queue.popleft())
        elif roll < 0.96:
            error = self.chance.choice([DiskError.IO, DiskError.FULL, DiskError.DENIED])
            count = self.chance.choice([1, 1, 1, 12])  # a window in which it refuses, or a single error
            self.disk.failures += [(self.chance.choice(OPERATIONS), error)] * count
        elif roll < 0.975:
            self.give()
        elif roll < 0.985:
            self.step(e.CheckpointAsked())
        elif roll < 0.99:
            self.step(e.RetentionDue(self.chance.choice([0, 2000])))
        else:
            self.start()  # the process ends: what waits is never answered

    def append_some(self):
        """Send the next batch, or again one that is not acknowledged; five in flight at most."""
        missing = [s for s in range(self.next_sequence) if s not in self.acked]
        waiting = list(self.unanswered.values())
        again = [s for s in missing if s not in waiting or self.chance.random() < 0.1]
        if again:
            self.append(again[0])
        elif len(missing) < 5:
            self.next_sequence += 1
            self.append(self.next_sequence - 1)

    def check_end(self):
        """Heal the disk, lead, and compare the disk with what was acknowledged."""
        self.disk.failures.clear()
        self.settle()
        self.give()
        self.settle()
        assert self.replica.role is Role.LEADER
        for sequence in [s for s in range(self.next_sequence) if s not in self.acked]:
            self.append(sequence)
            self.settle()
        assert list(range(self.next_sequence)) == sorted(self.acked)
        assert {} == self.unanswered
        self.check_disk()
        self.start()
        self.settle()
        self.check_disk()
        logs = [name for name in self.disk.files if name.endswith(".log")]
        assert len(logs) <= len(self.replica.log.segments)  # what retention gave up is gone

    def check_disk(self):
        start = self.replica.log.start_offset
        found, offset = {}, start
        for segment in self.replica.log.segments:
            file = self.replica.log.file(segment)
            view = memoryview(bytes(self.disk.files.get(file, b"")))
            assert len(view) == segment.size_bytes
            at = 0
            while at < len(view):
                head = read_head(view, at)
                assert crc_is_right(view, head)
                assert offset == head.base_offset
                assert head.batch_sequence not in found
                found[head.batch_sequence] = head.base_offset
                offset += head.record_count
                at += head.size_bytes
        assert found == {sequence: base for sequence, base in self.acked.items() if base >= start}
        assert offset == self.replica.high_watermark == self.replica.log.end_offset


@pytest.mark.parametrize("seed", range(300))
def test_story(seed, memory_disk, make_files):
    """See the module's text; repeat one with `-k 'test_story[SEED]'`."""
    story = Story(seed, memory_disk, make_files)
    for _ in range(800):
        story.act()
    story.check_end()
