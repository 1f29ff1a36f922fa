"""Invariant tested: whatever became of a bucket's files, its replica starts, is consistent, and goes on.

    python fuzz/segments.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/segments.py canary        (must fail: checksums are believed)

Files of a real history are damaged: bits, cuts, pages, batches, whole files lost, swapped, older, foreign.
What recovery looked at must be batches of the history, each at its own offset; what it did not look at,
below the checkpoint, is checked when it is read. Then the bucket is led, written, read, and started again.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
from packed import Files, pack, unpack
from trials import Target, WrongAnswer, run_target

from flussd.core import files as f
from flussd.core.files import DiskError
from flussd.core.log import recovery
from flussd.core.log.checkpoint import CHECKPOINT_NAME
from flussd.core.log.log import Located
from flussd.core.log.segment import index_name, log_name
from flussd.core.machine import Continue, ContinueLater
from flussd.core.records.batch import build_batch, crc_is_right, read_head, scan_produced
from flussd.core.replica import events as e
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Durability, ReplicaConfig, Role
from flussd.core.storage import Files as FileEffects
from flussd.core.tablet.locate import Seek, Walk, WalkEnd

FOLDER: Final = "buckets/1/0"
PAGE_BYTES: Final = 512
STEPS_MAX: Final = 20_000
"""Effects of one start; the longest history takes a hundredth of this."""

_SHAPE: Final = struct.Struct(">I")
Originals = dict[int, tuple[int, bytes]]  # offset -> (end offset, what the checksum covers)


@attrs.define(eq=False)
class Disk:
    """A folder in memory, every operation of which ends at once."""

    files: dict[str, bytearray] = attrs.Factory(dict)
    operations: int = 0

    def _ends(self, file: str, done: Callable[[DiskError | None], None]) -> None:
        self.operations += 1
        if self.operations > STEPS_MAX:
            raise WrongAnswer(f"{self.operations} operations of the disk: it goes round in circles")
        done(None if file in self.files else DiskError.MISSING)

    def write(self, file: str, position: int, views: Any, done: Any) -> None:
        """Write."""
        data = b"".join(views)
        content = self.files.setdefault(file, bytearray())
        content.extend(bytes(max(0, position - len(content))))
        content[position : position + len(data)] = data
        self._ends(file, done)

    def read(self, file: str, position: int, size_bytes: int, done: Any) -> None:
        """Read."""
        self._ends(
            file,
            lambda error: done(bytes(self.files.get(file, b"")[position : position + size_bytes]), error),
        )

    def sync(self, file: str, done: Any) -> None:
        """Sync."""
        self._ends(file, done)

    def sync_folder(self, _: str, done: Any) -> None:
        """Sync a folder."""
        done(None)

    def truncate(self, file: str, size_bytes: int, done: Any) -> None:
        """Cut."""
        if file in self.files:
            del self.files[file][size_bytes:]
        self._ends(file, done)

    def rename(self, old: str, new: str, done: Any) -> None:
        """Rename."""
        self.files[new] = self.files.pop(old)
        done(None)

    def remove(self, path: str, done: Any) -> None:
        """Remove."""
        self.files.pop(path, None)
        done(None)

    def list(self, _: str, done: Any) -> None:
        """List."""
        done(tuple(sorted((file, len(data)) for file, data in self.files.items())), None)


@attrs.define(eq=False)
class Bucket:
    """One process's replica over a disk."""

    disk: Disk
    config: ReplicaConfig
    epoch: int = 0
    news: list[Any] = attrs.Factory(list)
    replica: Replica = attrs.field(init=False)
    effects: FileEffects = attrs.field(init=False)
    queue: deque[Any] = attrs.Factory(deque)

    def __attrs_post_init__(self) -> None:
        self.effects = FileEffects(self.disk, self.queue.append)
        tokens = itertools.count(1)
        self.replica = Replica((1, -1, 0), FOLDER, self.config, lambda: next(tokens))
        self.step(
            e.FilesListed({name.rpartition("/")[2]: len(data) for name, data in self.disk.files.items()})
        )

    def step(self, event: Any) -> None:
        """Let *event* happen, and all that follows."""
        self.queue.append(event)
        while self.queue:
            out: list[Any] = []
            self.replica.step(self.queue.popleft(), out)
            for item in out:
                if type(item).__module__ == f.__name__:
                    self.effects.perform(item)
                elif isinstance(item, ContinueLater):
                    self.queue.append(Continue(item.token))
                else:
                    self.news.append(item)

    def lead(self) -> None:
        """Give it the leadership, in an epoch after all that it knows."""
        self.step(e.LeadershipGiven(max(self.epoch, self.replica.epochs.last_epoch) + 1, 77))
        if self.replica.role is not Role.LEADER:
            raise WrongAnswer(f"expected a leader, got {self.replica.facts()}")

    def append(self, data: bytes) -> int:
        """Append batches; return the first one's offset."""
        view = memoryview(bytearray(data))
        found = scan_produced(view)
        self.news.clear()
        self.step(e.AppendAsked(1, -1, view, found.heads, 1000))
        (answer,) = [one for one in self.news if isinstance(one, e.AppendAnswered)]
        if answer.code:
            raise WrongAnswer(f"an append got {answer}")
        return int(answer.base_offset)


def config_of(draw: random.Random) -> ReplicaConfig:
    """Return the configuration of a history."""
    return ReplicaConfig(
        draw.choice(list(Durability)), draw.choice((300, 900, 1 << 20)), draw.choice((150, 800, 1 << 20))
    )


def history(shape: int) -> tuple[ReplicaConfig, Originals, Files, Files]:
    """Return what some work leaves: its batches, its files, and those of an earlier moment."""
    draw = random.Random(shape)
    config, disk = config_of(draw), Disk()
    bucket = Bucket(disk, config)
    bucket.lead()
    originals: Originals = {}
    earlier: Files = {}
    for n in range(draw.randrange(1, 25)):
        magic = draw.choice((0, 0, 1, 2))
        count = draw.choice((1, 1, 3, 40))
        writer = draw.choice((-1, 7))
        sequence = bucket.replica.writers.expected(writer) if writer >= 0 else -1
        payload = b"%d " % n * draw.choice((1, 20, 90))
        data = build_batch(
            payload, record_count=count, magic=magic, writer_id=writer, batch_sequence=sequence
        )
        offset = bucket.append(data)
        originals[offset] = (offset + count, data[29 if magic == 2 else 25 :])
        chance = draw.random()
        if chance < 0.1:
            bucket = Bucket(disk, config)
            bucket.lead()
        elif chance < 0.2:
            bucket.step(e.CheckpointAsked())
        elif chance < 0.23:
            bucket.step(e.RetentionDue(draw.choice((500, 1000, 1001))))
        if draw.random() < 0.2:
            earlier = snapshot(disk)
    return config, originals, snapshot(disk), earlier


def snapshot(disk: Disk) -> Files:
    """Return the files as they are, without their folder."""
    return {name.rpartition("/")[2]: bytes(data) for name, data in disk.files.items()}


def make(draw: random.Random) -> bytes:
    """Return the number of a history, and its files, damaged or not."""
    shape = draw.getrandbits(32)
    _, _, files, earlier = history(shape)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        if files:
            damage(files, earlier, draw)
    return _SHAPE.pack(shape) + pack(files)


def damage(files: Files, earlier: Files, draw: random.Random) -> None:
    """Change one file, or which files there are."""
    name = draw.choice(sorted(files))
    data = bytearray(files[name])
    at = draw.randrange(len(data) + 1)
    match draw.randrange(12):
        case 0 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data += draw.choice((draw.randbytes(draw.randrange(200)), bytes(draw.randrange(2000))))
        case 3:
            data[at:at] = draw.randbytes(draw.randrange(1, 80))
        case 4:
            page = at - at % PAGE_BYTES
            data[page : page + PAGE_BYTES] = bytes(len(data[page : page + PAGE_BYTES]))
        case 5:
            _splice(data, draw)
        case 6:
            other = draw.choice(sorted(files))
            files[other], data = bytes(data), bytearray(files[other])
        case 7:
            del files[name]
            return
        case 8 if earlier:
            name = draw.choice(sorted(earlier))
            data = bytearray(earlier[name])
        case 9:
            name = draw.choice(
                ("junk", "checkpoint.tmp", log_name(draw.randrange(60)), index_name(draw.randrange(60)))
            )
            data = bytearray(draw.choice((b"", draw.randbytes(60), bytes(data))))
        case 10 if at < len(data):
            data[at] = draw.randrange(256)
        case _:
            files.pop(CHECKPOINT_NAME, None)
            return
    files[name] = bytes(data)


def _splice(data: bytearray, draw: random.Random) -> None:
    """Double, drop or move one whole batch."""
    view, heads, at = memoryview(bytes(data)), [], 0
    while (head := read_head(view, at)) is not None and at + head.size_bytes <= len(view):
        heads.append(bytes(view[at : at + head.size_bytes]))
        at += head.size_bytes
    if heads:
        n = draw.randrange(len(heads))
        batch = heads[n] if draw.random() < 0.5 else heads.pop(n)
        heads.insert(draw.randrange(len(heads) + 1), batch)
        if draw.random() < 0.3:
            heads.remove(batch)
    data[:] = b"".join((*heads, view[at:]))


def check(data: bytes) -> str:
    """Start on damaged files, look at what was found, go on with it; return how that ended."""
    config, originals, _, _ = history(_SHAPE.unpack_from(data)[0])
    disk = Disk(
        {f"{FOLDER}/{name}": bytearray(content) for name, content in unpack(data[_SHAPE.size :]).items()}
    )
    bucket = Bucket(disk, config)
    replica = bucket.replica
    if replica.role is not Role.OFFLINE or replica.busy:
        raise WrongAnswer(f"it does not start: {replica.facts()}")
    ended = "whole" if replica.last_cut is None else "cut"
    trusted = replica.durable.base.end  # recovery does not look at what lies before it
    look(bucket, originals, trusted)
    bucket.lead()
    end_offset = replica.log.end_offset
    appended = bucket.append(build_batch(b"fresh", record_count=2))
    if appended != end_offset:
        raise WrongAnswer(f"expected the next batch at {end_offset}, got {appended}")
    originals[appended] = (appended + 2, build_batch(b"fresh", record_count=2)[25:])
    read_all(bucket)
    again = Bucket(disk, config)
    if again.replica.role is not Role.OFFLINE or again.replica.log.end_offset != end_offset + 2:
        raise WrongAnswer(f"started again: expected the end {end_offset + 2}, got {again.replica.facts()}")
    return ended


def look(bucket: Bucket, originals: Originals, trusted: tuple[int, int, int, int]) -> None:
    """Hold the log to the history: files as long as it says, and what recovery read is what was written."""
    log = bucket.replica.log
    for before, after in itertools.pairwise(log.segments):
        if before.end_offset != after.base_offset:
            raise WrongAnswer(f"a hole between segments: {bucket.replica.facts()}")
    for segment in log.segments:
        content = bytes(bucket.disk.files.get(log.file(segment), b""))
        if len(content) != segment.size_bytes:
            raise WrongAnswer(
                f"{log.file(segment)}: expected {segment.size_bytes} bytes, got {len(content)}"
            )
        if segment.base_offset < trusted[1]:
            continue
        at, offset = (
            (trusted[2], trusted[0]) if segment.base_offset == trusted[1] else (0, segment.base_offset)
        )
        end_offset = walk(content, at, offset, originals)
        if end_offset != segment.end_offset:
            raise WrongAnswer(
                f"{log.file(segment)}: expected to end at {segment.end_offset}, got {end_offset}"
            )


def walk(content: bytes, at: int, offset: int, originals: Originals) -> int:
    """Return the end offset of the batches of *content*, each of which must be of the history."""
    view = memoryview(content)
    while at < len(view):
        head = read_head(view, at)
        covered_at = at + (29 if view[at + 12] == 2 else 25)
        end_offset, covered = originals.get(offset, (-1, b""))
        if head is None or head.base_offset != offset or covered != view[covered_at : at + head.size_bytes]:
            raise WrongAnswer(f"at byte {at}, offset {offset}: no batch of the history: {head}")
        at, offset = at + head.size_bytes, end_offset
    return offset


def read_all(bucket: Bucket) -> None:
    """Look for offsets all over the log, as reads do: each is found, or told to be damaged."""
    log = bucket.replica.log
    step = max(1, (log.end_offset - log.start_offset) // 20)
    for offset in range(log.start_offset, log.end_offset, step):
        place = log.locate(offset)
        content = bytes(bucket.disk.files.get(log.file(place.segment), b""))
        if isinstance(place, Located):
            head = read_head(memoryview(content), place.position)
            if (
                head is None
                or not crc_is_right(memoryview(content), head)
                or not head.base_offset <= offset
            ):
                raise WrongAnswer(f"offset {offset}: expected a right batch at {place}, got {head}")
            continue
        _walk_to(Walk.begin(Seek.OFFSET, offset, "", place, place.segment.size_bytes), content)


def _walk_to(walk: Walk, content: bytes) -> None:
    """Let a reader look for its batch; it must come to an end."""
    for _ in range(STEPS_MAX):
        data = content[walk.position : walk.position + walk.wanted_bytes()]
        if walk.look_at(data) is not WalkEnd.MORE:
            return
    raise WrongAnswer(f"the search for offset {walk.target} does not end")


def break_it() -> None:
    """Break the code under test, as the canary says."""
    recovery.crc_is_right = lambda _view, _head: True


TARGET = Target("segments", make, check, break_it, 6_000)

if __name__ == "__main__":
    run_target(TARGET)
