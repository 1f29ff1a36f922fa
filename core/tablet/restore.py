"""From the log of a primary-key bucket back to its rows: what a new leader does before it serves them.

The whole log is read and folded, batch by batch, in slices that leave others their turn. Nothing on the
disk is believed: a batch that is damaged, or not the next one, ends the restore, and the replica begins
again from its files, for a part of the rows must never be served. It is the caller's to drop the restore
of a bucket that is led no more.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.files import FileRead, ReadFile
from flussd.core.kv.rules import TableRules
from flussd.core.kv.table import KvTable
from flussd.core.limits import (
    MERGE_SLICE_RECORDS,
    RECOVERY_READ_BYTES,
    RESTORE_SLICE_RECORDS,
    RESTORES_AT_ONCE,
)
from flussd.core.log.log import Log
from flussd.core.machine import Continue, ContinueLater
from flussd.core.records.batch import BatchHead, crc_is_right, crc_of, read_head
from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.replica.events import BucketKey
from flussd.core.slices import Slices

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer


_NOTHING: Final = memoryview(b"")


class Stage(enum.Enum):
    """What a restore wants next."""

    READ = "more bytes"
    TURN = "its next turn: there is more to fold"
    DONE = "nothing: all is folded"
    FAILED = "nothing: see its text"


@attrs.frozen
class Pace:
    """How much of a log is read at a time, and folded before others get their turn."""

    read_bytes: int = RECOVERY_READ_BYTES
    slice_records: int = RESTORE_SLICE_RECORDS
    batch_slice_records: int = MERGE_SLICE_RECORDS  # within a batch that has more


USUAL_PACE: Final = Pace()


@attrs.define(eq=False)
class Restore:
    """The fold of one log into *table*; nothing is appended meanwhile."""

    key: BucketKey
    table: KvTable
    rules: TableRules
    spans: list[tuple[str, int]]  # files and their sizes, the next one last
    offset: int  # of the next batch
    end_offset: int
    pace: Pace
    position: int = 0  # in the file, of the first byte of `view`
    view: memoryview = _NOTHING
    at: int = 0  # in the view, where the next batch begins
    wanted_bytes: int = 0  # when that is more than a read of its pace
    asked_bytes: int = 0
    text: str = ""
    folding: Slices[None] | None = None  # of the batch at `at`, which is whole and right

    @classmethod
    def of(cls, key: BucketKey, log: Log, table: KvTable, rules: TableRules, pace: Pace) -> Restore:
        """Begin with the first batch of *log*."""
        spans = [(log.file(segment), segment.size_bytes) for segment in log.segments if segment.size_bytes]
        return cls(key, table, rules, spans[::-1], log.start_offset, log.end_offset, pace)

    def read(self, token: int) -> ReadFile:
        """Return the read that it wants."""
        file, size_bytes = self.spans[-1]
        self.position, self.at = self.position + self.at, 0
        wanted_bytes = max(self.wanted_bytes, self.pace.read_bytes)
        self.asked_bytes = min(wanted_bytes, size_bytes - self.position)
        return ReadFile(token, file, self.position, self.asked_bytes)

    def took(self, event: FileRead) -> Stage:
        """Take a read in, and fold the first of it."""
        if event.error is not None:
            return self._bad(event.error.value)
        if len(event.data) < self.asked_bytes:
            return self._bad(f"expected {self.asked_bytes} bytes, the file has {len(event.data)}")
        self.view, self.wanted_bytes = memoryview(event.data), 0
        return self.go_on()

    def go_on(self) -> Stage:
        """Fold what is there, up to the size of a slice."""
        folded_count = 0
        while folded_count < self.pace.slice_records:
            if self.spans and not self._left_in_file:
                self.spans.pop()
                self.position, self.view, self.at = 0, _NOTHING, 0
            elif not self.spans:
                return Stage.DONE if self.offset == self.end_offset else self._bad("the log ends early")
            else:
                head = read_head(self.view, self.at)
                stage = self._look_at(head)
                if stage is not None:
                    return stage
                assert head is not None
                self.offset += head.last_offset_delta + 1
                self.at += head.size_bytes
                folded_count += 1 + head.record_count
        return Stage.TURN

    def _look_at(self, head: BatchHead | None) -> Stage | None:
        """Fold the batch of *head*; else tell what is wrong, or wanted: a turn, if it is a large one."""
        if self.folding is None:
            stage = self._check(head)
            if stage is not None:
                return stage
            assert head is not None
            slice_records = self.pace.batch_slice_records
            self.folding = self.table.replaying(self.rules, self.view, head, slice_records)
        try:
            next(self.folding)
        except StopIteration:
            self.folding = None
            return None
        except (BadRow, BadValue) as bad:
            return self._bad(str(bad))
        return Stage.TURN

    def _check(self, head: BatchHead | None) -> Stage | None:
        """Tell what is wrong with the batch of *head*, or missing of it."""
        left_bytes = len(self.view) - self.at
        if head is None:
            may_be_cut = left_bytes < self._left_in_file and (self.at > 0 or not left_bytes)
            return Stage.READ if may_be_cut else self._bad("no batch head")
        if head.size_bytes > self._left_in_file:
            return self._bad(f"it needs {head.size_bytes} bytes, the file has {self._left_in_file}")
        if head.size_bytes > left_bytes:
            self.wanted_bytes = head.size_bytes
            return Stage.READ
        if head.base_offset != self.offset:
            return self._bad(f"expected offset {self.offset}, got {head.base_offset}")
        if not crc_is_right(self.view, head):
            return self._bad(f"expected checksum {head.crc:#010x}, got {crc_of(self.view, head):#010x}")
        return None

    @property
    def _left_in_file(self) -> int:
        return self.spans[-1][1] - self.position - self.at

    def _bad(self, why: str) -> Stage:
        file = self.spans[-1][0] if self.spans else "the log"
        self.text = f"cannot restore the rows: batch at {self.position + self.at} of {file}: {why}"
        return Stage.FAILED


@attrs.define(eq=False)
class Restores:
    """The restores of a tablet server: some run, the others wait for their turn."""

    server: TabletServer
    running: dict[BucketKey, Restore] = attrs.Factory(dict)
    waiting: dict[BucketKey, Restore] = attrs.Factory(dict)
    by_token: dict[int, Restore] = attrs.Factory(dict)  # of reads, and of turns

    def begin(self, restore: Restore) -> None:
        """Restore a bucket, at once or when others are done."""
        assert restore.key not in self.running
        assert restore.key not in self.waiting
        self.waiting[restore.key] = restore
        self._begin_next()

    def drop(self, key: BucketKey) -> None:
        """The bucket is led no more: what is read yet is for nobody."""
        self.waiting.pop(key, None)
        if self.running.pop(key, None) is not None:
            self._begin_next()

    def _begin_next(self) -> None:
        while self.waiting and len(self.running) < RESTORES_AT_ONCE:
            key = next(iter(self.waiting))
            restore = self.running[key] = self.waiting.pop(key)
            self._turn_later(restore)

    def read(self, event: FileRead) -> None:
        """A read ended."""
        restore = self.by_token.pop(event.token)
        if self.running.get(restore.key) is restore:
            self._look_at(restore, restore.took(event))

    def turn(self, event: Continue) -> None:
        """A restore may go on."""
        restore = self.by_token.pop(event.token)
        if self.running.get(restore.key) is restore:
            self._look_at(restore, restore.go_on())

    def _turn_later(self, restore: Restore) -> None:
        token = self.server.next_token()
        self.by_token[token] = restore
        self.server.emit(ContinueLater(token))

    def _look_at(self, restore: Restore, stage: Stage) -> None:
        if stage is Stage.READ:
            token = self.server.next_token()
            self.by_token[token] = restore
            self.server.emit(restore.read(token))
        elif stage is Stage.TURN:
            self._turn_later(restore)
        else:
            del self.running[restore.key]
            self.server.keyed.restored(restore, stage)
            self._begin_next()
