"""From the files of a bucket to its log: after a clean stop in two reads, else by looking at every batch.

Behind the checkpoint nothing is believed: a batch counts when it is whole, its checksum is right and its
offset is the next one. At the first that is not, the rest is cut off, with all later segments: what
was acknowledged as durable lies before it. What is believed is written once more, in its place: an
earlier sync may have failed, and the pages of a failed sync count as clean, so that a later sync would
promise what the disk does not have. Between two reads others have their turn: a server may serve other
buckets meanwhile. Whoever runs it owes it every completion of its effects.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from flussd.core import files as f
from flussd.core.log.checkpoint import CHECKPOINT_NAME, CheckpointBody
from flussd.core.log.epochs import EpochHistory
from flussd.core.log.log import End, Log
from flussd.core.log.segment import Segment, base_of, index_name, log_name
from flussd.core.log.writers import Writers
from flussd.core.machine import Continue, ContinueLater
from flussd.core.records.batch import BatchHead, crc_is_right, crc_of, read_head


class Stage(enum.Enum):
    """What the recovery waits for."""

    CHECKPOINT = "the checkpoint file"
    INDEX = "the index of a segment that grows no more"
    SCAN = "bytes to look at, or its turn to read on"
    CUT = "the cut, and the removal of what came after"
    SYNC = "the cut to be durable"
    REWRITE = "the last bytes that are written once more"
    DONE = "nothing: the log is ready"
    FAILED = "nothing: the disk refused"


@attrs.frozen
class Cut:
    """What was thrown away: *bytes_count* behind *end_offset*, because of *why*."""

    end_offset: int
    bytes_count: int
    why: str


@attrs.define(eq=False)
class Recovery:
    """Recovers the bucket in *folder*; *sizes* are its files' names and sizes.

    When `stage` is DONE, *log*, *writers* and *epochs* are what the files hold.
    """

    folder: str
    sizes: dict[str, int]
    next_token: Callable[[], int]
    read_bytes: int
    stage: Stage = Stage.CHECKPOINT
    log: Log = attrs.field(init=False)
    writers: Writers = attrs.Factory(Writers)
    epochs: EpochHistory = attrs.Factory(EpochHistory)
    scanned_bytes: int = 0
    cut: Cut | None = None
    rewritten: bool = True  # whether all that was scanned is sure to reach the disk by the next sync
    error: f.DiskError | None = None
    _bases: list[int] = attrs.Factory(list)
    _next: int = 0  # which of _bases comes next
    _outstanding: set[int] = attrs.Factory(set)
    _checkpoint: CheckpointBody | None = None
    _told: CheckpointBody | None = None  # what the file says, believed or not
    _leftovers: set[int] = attrs.Factory(set)  # tokens of removals that nothing waits for
    _wanted: tuple[str, int, int] = ("", 0, 0)  # file, position and size of the next read

    def __attrs_post_init__(self) -> None:
        bases = [base_of(name) for name in self.sizes]
        self._bases = sorted(base for base in bases if base is not None)
        self.log = Log(self.folder, [])

    @property
    def busy(self) -> bool:
        """Whether completions are still to come."""
        return bool(self._outstanding)

    @property
    def base(self) -> CheckpointBody:
        """The checkpoint that the log was recovered from, or one that says that nothing is known."""
        if self._checkpoint is not None:
            return self._checkpoint
        first = self.log.start_offset
        return CheckpointBody((first, first, 0, -1), 0, tuple(self.epochs.entries))

    def unsynced_files(self) -> list[str]:
        """Return the files with bytes behind the checkpoint, in order."""
        end: End = self.base.end
        return [
            self.log.file(segment)
            for segment in self.log.segments
            if segment.base_offset >= end[1] and segment.end_offset > end[0]
        ]

    def start(self) -> list[Any]:
        """Return the first effects; with none to do, the stage is DONE."""
        size_bytes = self.sizes.get(CHECKPOINT_NAME, 0)
        if size_bytes:
            return self._ask_read(CHECKPOINT_NAME, 0, size_bytes)
        return self._begin(None)

    def step(self, event: Any) -> list[Any]:
        """Take a completion in; return what follows."""
        assert event.token in self._outstanding, "recovery: a completion that was not asked for"
        self._outstanding.discard(event.token)
        if self.stage is Stage.FAILED:
            return []
        if event.token in self._leftovers:
            return self._nothing_outstanding()  # one that failed is tried at the next start
        if isinstance(event, Continue):
            return self._ask_read(*self._wanted)
        if isinstance(event, f.FileWritten):
            self.rewritten = self.rewritten and event.error is None
            return self._nothing_outstanding()
        if event.error is not None and event.error is not f.DiskError.MISSING:
            self.stage, self.error = Stage.FAILED, event.error
            return []
        if self.stage is Stage.CHECKPOINT:
            return self._begin(CheckpointBody.decode(event.data))
        if self.stage is Stage.INDEX:
            return self._index_read(event.data)
        if self.stage is Stage.SCAN:
            return self._look_at(memoryview(event.data))
        return self._nothing_outstanding()

    def _nothing_outstanding(self) -> list[Any]:
        """Go on, where a stage ends with the last of its effects."""
        if self._outstanding:
            return []
        if self.stage is Stage.CUT:
            # Removed names that came back after a power loss would fit in again at some later end.
            self.stage = Stage.SYNC
            return [f.SyncFile(self._token(), self.log.file(self.log.active))]
        if self.stage in (Stage.SYNC, Stage.REWRITE):
            self._finish()
        return []

    # ---- the parts, in the order in which they happen ------------------------------------------

    def _begin(self, checkpoint: CheckpointBody | None) -> list[Any]:
        """Take the checkpoint if the files reach as far as it says, else look at everything."""
        effects: list[Any] = []
        if checkpoint is not None:
            self._told = checkpoint
            effects = self._remove_given_up(checkpoint.start_offset)
            self.epochs = EpochHistory(list(checkpoint.epochs))
            _, base_offset, size_bytes, _ = checkpoint.end
            if self.sizes.get(log_name(base_offset), 0) >= size_bytes:
                self._checkpoint = checkpoint
                self.writers = Writers.from_json(checkpoint.writers)
        return [*effects, *self._next_segment()]

    def _remove_given_up(self, start_offset: int) -> list[Any]:
        """Remove what retention gave up, and the end of the process or of the power kept."""
        effects: list[Any] = []
        for base in [base for base in self._bases if base < start_offset]:
            for name in (log_name(base), index_name(base)):
                token = self._token()
                self._leftovers.add(token)
                effects.append(f.RemoveFile(token, f"{self.folder}/{name}"))
        self._bases = [base for base in self._bases if base >= start_offset]
        return effects

    def _next_segment(self) -> list[Any]:
        """Go on with the next file, whose base must be where the last one ended."""
        if self._next == len(self._bases):
            self._add_missing_active()
            self._finish()
            return []
        base = self._bases[self._next]
        checkpoint_base = self._checkpoint.end[1] if self._checkpoint else -1
        if self.log.segments and base != self.log.end_offset:
            if base > checkpoint_base:
                return self._cut_here(f"expected a segment at {self.log.end_offset}, got {base}")
            self.log.active.end_offset = base  # durable once, and damaged: readers will be told
        self._next += 1
        size_bytes = self.sizes[log_name(base)]
        if base < checkpoint_base:
            self.stage = Stage.INDEX
            return self._ask_read(index_name(base), 0, self.sizes.get(index_name(base), 0))
        if base == checkpoint_base:
            assert self._checkpoint is not None
            end_offset, _, known_bytes, max_timestamp_ms = self._checkpoint.end
            sparse = self._checkpoint.sparse_index()
            segment = Segment(base, end_offset, known_bytes, max_timestamp_ms, sparse)
            self.log.segments.append(segment)
        else:
            self._add_empty(base)
        return self._scan_on(size_bytes)

    def _add_missing_active(self) -> None:
        """Begin a segment where there is none, or where the checkpoint has one without a byte.

        Offsets are never reused, and nothing is appended to a segment that the checkpoint calls full.
        """
        told = self._checkpoint or (None if self.log.segments else self._told)
        if told is not None and (not self.log.segments or self.log.active.base_offset < told.end[1]):
            end_offset, _, _, max_timestamp_ms = told.end
            self.log.segments.append(Segment(end_offset, end_offset, 0, max_timestamp_ms))
        elif not self.log.segments:
            self.log.segments.append(Segment(0, 0))

    def _add_empty(self, base: int) -> None:
        before_ms = self.log.active.max_timestamp_ms if self.log.segments else -1
        self.log.segments.append(Segment(base, base, 0, before_ms))

    def _index_read(self, data: bytes) -> list[Any]:
        base = self._bases[self._next - 1]
        size_bytes = self.sizes[log_name(base)]
        segment = Segment.from_index_file(base, size_bytes, data)
        if segment is None:
            self._add_empty(base)
            return self._scan_on(size_bytes)
        self.log.segments.append(segment)
        return self._next_segment()

    def _scan_on(self, size_bytes: int, at_least_bytes: int = 0) -> list[Any]:
        """Read on in the active segment, whose file has *size_bytes*."""
        position = self.log.active.size_bytes
        if position >= size_bytes:
            return self._next_segment()
        is_first, self.stage = self.stage is not Stage.SCAN, Stage.SCAN
        wanted_bytes = min(size_bytes - position, max(self.read_bytes, at_least_bytes))
        self._wanted = log_name(self.log.active.base_offset), position, wanted_bytes
        return self._ask_read(*self._wanted) if is_first else [ContinueLater(self._token())]

    def _look_at(self, view: memoryview) -> list[Any]:
        """Take in the batches of *view*, which begins at the active segment's end."""
        position, file = self.log.active.size_bytes, self.log.file(self.log.active)
        followed = self._take_batches(view)
        good_bytes = self.log.active.size_bytes - position
        if not good_bytes or self._below_checkpoint:
            return followed()
        rewrite = f.WriteFile(self._token(), file, position, (view[:good_bytes],))
        return [rewrite, *followed()]

    @property
    def _below_checkpoint(self) -> bool:
        """Whether the active segment is only looked at because its index is gone: it is durable."""
        return self._checkpoint is not None and self.log.active.base_offset < self._checkpoint.end[1]

    def _bad(self, why: str) -> Callable[[], list[Any]]:
        """Return what follows a batch that is none: a cut, unless acknowledged data lies behind it."""
        if not self._below_checkpoint:
            return partial(self._cut_here, why)
        active = self.log.active
        active.size_bytes = self.sizes[log_name(active.base_offset)]
        active.dense.truncate(0)  # nothing here is sure; readers check each batch
        return self._next_segment

    def _take_batches(self, view: memoryview) -> Callable[[], list[Any]]:
        """Take in the whole, right batches at the start of *view*; return what comes after them."""
        active = self.log.active
        size_bytes = self.sizes[log_name(active.base_offset)]
        at = 0
        while at < len(view):
            head = read_head(view, at)
            left_bytes = size_bytes - active.size_bytes
            if head is None and len(view) - at < left_bytes and at:
                break  # the head itself is cut by the end of what was read
            why = self._what_is_wrong(view, head, at, left_bytes)
            if why is not None:
                return self._bad(why)
            assert head is not None
            if at + head.size_bytes > len(view):
                return partial(self._scan_on, size_bytes, at_least_bytes=head.size_bytes)
            if not crc_is_right(view, head):
                return self._bad(self._what_rotted(view, head, at))
            self._take(head)
            at += head.size_bytes
        return partial(self._scan_on, size_bytes)

    def _what_is_wrong(
        self, view: memoryview, head: BatchHead | None, at: int, left_bytes: int
    ) -> str | None:
        where = f"at {self.log.active.size_bytes} of {self.log.file(self.log.active)}"
        if head is None:
            return f"no batch head {where}: {len(view) - at} bytes read"
        if head.size_bytes > left_bytes:
            return f"batch {where} needs {head.size_bytes} bytes, the file has {left_bytes}"
        if head.base_offset != self.log.end_offset:
            return f"batch {where}: expected offset {self.log.end_offset}, got {head.base_offset}"
        return None

    def _what_rotted(self, view: memoryview, head: BatchHead, at: int) -> str:
        """Describe a batch with a wrong checksum; a whole one behind it shows that no write ended there."""
        end = at + head.size_bytes
        where = f"batch at {self.log.active.size_bytes} of {self.log.file(self.log.active)}"
        text = f"{where}: expected checksum {head.crc:#010x}, got {crc_of(view, head):#010x}"
        behind = read_head(view, end)
        if behind is None or behind.base_offset != head.base_offset + head.last_offset_delta + 1:
            return text
        is_whole = end + behind.size_bytes <= len(view) and crc_is_right(view, behind)
        return f"{text}; it is damage, for a whole batch follows" if is_whole else text

    def _take(self, head: BatchHead) -> None:
        end_offset = head.base_offset + head.last_offset_delta + 1
        self.log.active.append(head.base_offset, end_offset, head.size_bytes, head.commit_timestamp_ms)
        if self._below_checkpoint:
            return  # the checkpoint has its writers already
        self.scanned_bytes += head.size_bytes
        if head.writer_id >= 0:
            self.writers.add(
                head.writer_id, head.batch_sequence, head.base_offset, end_offset, head.commit_timestamp_ms
            )

    def _cut_here(self, why: str) -> list[Any]:
        """Cut the active segment at its end so far, and remove all later ones."""
        self.stage = Stage.CUT
        active = self.log.active
        name = log_name(active.base_offset)
        later = [base for base in self._bases if base > active.base_offset]
        lost_bytes = self.sizes[name] - active.size_bytes
        lost_bytes += sum(self.sizes[log_name(base)] for base in later)
        self.cut = Cut(self.log.end_offset, lost_bytes, why)
        effects: list[Any] = []
        # From the back: a crash in between leaves a log without a hole.
        for base in reversed(later):
            effects.append(f.RemoveFile(self._token(), f"{self.folder}/{log_name(base)}"))
            effects.append(f.RemoveFile(self._token(), f"{self.folder}/{index_name(base)}"))
        effects.append(f.RemoveFile(self._token(), f"{self.folder}/{index_name(active.base_offset)}"))
        effects.append(f.TruncateFile(self._token(), f"{self.folder}/{name}", active.size_bytes))
        return effects

    def _finish(self) -> None:
        if self._outstanding:
            self.stage = Stage.REWRITE
            return
        self.stage = Stage.DONE
        self.epochs.truncate(self.log.end_offset)
        self.writers.expire(self.log.active.max_timestamp_ms)

    # ---- effects -------------------------------------------------------------------------------

    def _token(self) -> int:
        token = self.next_token()
        self._outstanding.add(token)
        return token

    def _ask_read(self, name: str, position: int, size_bytes: int) -> list[Any]:
        return [f.ReadFile(self._token(), f"{self.folder}/{name}", position, size_bytes)]
