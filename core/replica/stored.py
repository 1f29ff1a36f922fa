"""The log of one replica and its files: recovery, failed writes, syncs and checkpoints.

The half of a replica that deals with the disk; who leads and whom to answer is in replica.py, which
builds on it. The disk may refuse anything, at any time: a failed write is taken back with all behind it
while the replica goes on; where nothing can go on, it ends what is in flight and begins again from its
files. Its caller owes it the end of every effect.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import attrs

from flussd.core import files as f
from flussd.core.files import DiskError
from flussd.core.limits import RECOVERY_READ_BYTES, SEGMENT_BYTES
from flussd.core.log.checkpoint import CheckpointBody
from flussd.core.log.epochs import EpochHistory
from flussd.core.log.log import End, Log
from flussd.core.log.recovery import Cut, Recovery, Stage
from flussd.core.log.segment import Segment, index_name
from flussd.core.log.writers import Writers
from flussd.core.replica import events as e
from flussd.core.replica.counts import BucketCounts
from flussd.core.replica.durable import Durable
from flussd.core.replica.events import BucketKey
from flussd.core.replica.flights import Flights
from flussd.core.wire.errors import ErrorCode


class Role(enum.IntEnum):
    """What the replica is doing; the columns of its table."""

    RECOVERING = 0  # reading its files
    OFFLINE = 1  # whole, and told to do nothing
    ACTIVATING = 2  # made leader; the epoch's entry is not durable yet
    LEADER = 3  # orders the writes
    TROUBLED = 4  # the disk refused; ends what is in flight, then waits to begin again


class Durability(enum.Enum):
    """What the high watermark waits for; see architecture section 6."""

    PAGE_CACHE = "page_cache"  # survives a killed process
    GROUP_FSYNC = "group_fsync"  # survives a power cut too: one sync for many batches, acks after it


@attrs.frozen
class ReplicaConfig:
    """What all replicas of a server share; the only place of these defaults."""

    durability: Durability = Durability.PAGE_CACHE
    segment_bytes: int = SEGMENT_BYTES
    checkpoint_bytes: int = 16 << 20  # appended since the last checkpoint, from which one is wanted
    recovery_read_bytes: int = RECOVERY_READ_BYTES  # between two turns of others; at least a batch's head


class Asked(enum.Enum):
    """Why a disk effect was asked for, where it is not a write, a sync or a checkpoint."""

    CUT = "take back a failed write"
    CUT_SYNC = "make the cut durable"
    INDEX = "keep an index; it can be rebuilt"
    OLD = "remove a file that retention gave up; recovery would"


@attrs.define(eq=False)
class StoredLog:
    """What a replica keeps on its disk, and what is on the way there; see the module's text."""

    key: BucketKey
    folder: str
    config: ReplicaConfig
    next_token: Callable[[], int]
    role: Role = Role.RECOVERING
    log: Log = attrs.field(init=False)
    durable: Durable = attrs.field(init=False)
    writers: Writers = attrs.Factory(Writers)
    epochs: EpochHistory = attrs.Factory(EpochHistory)
    flights: Flights = attrs.Factory(Flights)
    committed: End = (0, 0, 0, -1)  # the end up to which readers see: the high watermark's place
    written: End = (0, 0, 0, -1)  # the end up to which writes are confirmed
    last_cut: Cut | None = None
    recovery: Recovery | None = None
    asked: dict[int, Asked] = attrs.Factory(dict)
    cut_to: End | None = None  # while the files are longer than the log
    cut_failed: bool = False
    trouble: str = ""
    trouble_code: ErrorCode = ErrorCode.LOG_STORAGE_EXCEPTION
    trouble_told: bool = False
    checkpoint_wanted: bool = False
    checkpoint_asked: bool = False  # somebody waits for it
    checkpoint_told: bool = False  # that one is wanted
    checkpoint_failing: bool = False  # that the last one could not be written is told
    bytes_since_checkpoint: int = 0
    given_up: list[Segment] = attrs.Factory(list)  # their files go once a checkpoint says so
    counts: BucketCounts = attrs.Factory(BucketCounts)
    _out: list[Any] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self.log = Log(self.folder)
        self.durable = Durable(self.folder)

    @property
    def busy(self) -> bool:
        """Whether an effect of ours has not ended yet."""
        in_recovery = self.recovery is not None and self.recovery.busy
        return bool(self.flights.by_token or self.asked or self.durable.busy or in_recovery)

    # ---- what the other half does --------------------------------------------------------------

    def _recovered(self) -> None:
        raise NotImplementedError

    def _lead(self) -> None:
        raise NotImplementedError

    def _roll(self) -> None:
        raise NotImplementedError

    def _commit(self) -> None:
        raise NotImplementedError

    def _refuse_beyond(self, end_offset: int, code: ErrorCode, text: str) -> None:
        raise NotImplementedError

    def _leave(self, code: ErrorCode, text: str) -> None:
        raise NotImplementedError

    # ---- recovery ------------------------------------------------------------------------------

    def _recover(self, event: e.FilesListed) -> None:
        read_bytes = self.config.recovery_read_bytes
        self.recovery = Recovery(self.folder, event.sizes, self.next_token, read_bytes)
        self._out += self.recovery.start()
        self._look_at_recovery()

    def _recovering(self, event: Any) -> None:
        assert self.recovery is not None
        self._out += self.recovery.step(event)
        self._look_at_recovery()

    def _look_at_recovery(self) -> None:
        recovery = self.recovery
        assert recovery is not None
        if recovery.stage is Stage.FAILED and not recovery.busy:
            assert recovery.error is not None
            self.recovery = None
            self._fall(f"cannot recover the log: {recovery.error.value}")
        if recovery.stage is Stage.DONE:
            self._take_recovered(recovery)
            if self.durable.failed and self.config.durability is Durability.GROUP_FSYNC:
                self._fall("cannot write the end of the log anew")
            else:
                self._recovered()

    def _take_recovered(self, recovery: Recovery) -> None:
        self.recovery = None
        self.log, self.writers, self.epochs = recovery.log, recovery.writers, recovery.epochs
        self.given_up = []
        self.written = self.log.end
        self.durable = Durable(self.folder, recovery.base.end, recovery.base)
        self.durable.unsynced.extend(recovery.unsynced_files())
        self.durable.failed = not recovery.rewritten
        # The watermark never goes back within a process, and what is behind it was found again,
        # unless the disk lost it.
        known = max(self.committed, recovery.base.end, self.committable)
        self.committed = min(known, self.log.end)
        self.last_cut = recovery.cut or self.last_cut
        self.bytes_since_checkpoint = recovery.scanned_bytes

    @property
    def committable(self) -> End:
        """How far the watermark may go at replication factor 1."""
        return self.durable.end if self.config.durability is Durability.GROUP_FSYNC else self.written

    @property
    def high_watermark(self) -> int:
        """All below is committed: readers see it, and nothing else."""
        return self.committed[0]

    # ---- what failed writes leave --------------------------------------------------------------

    def _take_back(self) -> None:
        """Undo failed writes, with all behind the first of them, and cut the file there."""
        assert self.flights.error is not None
        full = self.flights.error is DiskError.FULL
        # A full disk must not be tried again a thousand times a second; clients pass 70 on.
        code = ErrorCode.DISK_WRITE_LOCKED if full else ErrorCode.LOG_STORAGE_EXCEPTION
        self.trouble, self.trouble_code = f"cannot write the log: {self.flights.error.value}", code
        end = self.flights.queue[0].end_before
        self._refuse_beyond(end[0], code, self.trouble)
        self.flights.take_back(self.writers)
        self.durable.forget_plan()
        self._cut(end)

    def _cut(self, end: End) -> None:
        """Cut the files at *end*, and the log with them."""
        self.cut_to, self.cut_failed = end, False
        self.written = min(self.written, end)
        self._out.append(e.LogCut(self.key, end[0]))
        for gone in self.log.truncate(end):
            self._ask(Asked.CUT, f.RemoveFile(self.next_token(), self.log.file(gone)))
        name = f"{self.folder}/{index_name(end[1])}"
        self._ask(Asked.CUT, f.RemoveFile(self.next_token(), name))
        self.durable.truncated(end)
        file = self.log.file(self.log.active)
        self._ask(Asked.CUT, f.TruncateFile(self.next_token(), file, end[2]))

    def _ask(self, why: Asked, effect: f.RemoveFile | f.TruncateFile | f.SyncFile) -> None:
        self.asked[effect.token] = why
        self._out.append(effect)

    def _asked_done(self, event: Any) -> None:
        """Something that was asked for beside writes ended."""
        why = self.asked.pop(event.token)
        if why in (Asked.CUT, Asked.CUT_SYNC):
            self._cut_step_done(why, event.error)
        self._settle()
        self._go_on()

    def _cut_step_done(self, why: Asked, error: DiskError | None) -> None:
        no_file = error is DiskError.MISSING and self.log.active.size_bytes == 0
        if error is not None and not no_file:
            self.cut_failed = True
        if why is Asked.CUT and not self.cut_failed and Asked.CUT not in self.asked.values():
            # Names that came back after a power loss would fit in again at some later end.
            file = self.log.file(self.log.active)
            self._ask(Asked.CUT_SYNC, f.SyncFile(self.next_token(), file))
        elif why is Asked.CUT_SYNC and not self.cut_failed:
            self.cut_to = None
        if self.cut_failed and self.role is not Role.TROUBLED:
            assert error is not None
            self._fall(f"cannot cut the log: {error.value}")

    # ---- trouble -------------------------------------------------------------------------------

    def _fall(self, trouble: str) -> None:
        """The disk refused something that nothing can go on without: begin again from the files."""
        self._leave(ErrorCode.LOG_STORAGE_EXCEPTION, trouble)
        self.role, self.trouble, self.trouble_told = Role.TROUBLED, trouble, False
        self.trouble_code = ErrorCode.LOG_STORAGE_EXCEPTION
        self._give_up_checkpoint()
        self._settle()

    def _settle(self) -> None:
        """In trouble: once nothing is in flight, say so, and wait to be told to begin again."""
        if self.role is Role.TROUBLED and not self.trouble_told and not self.busy:
            self.trouble_told = True
            self._out.append(e.Troubled(self.key, self.trouble))

    def _written_in_trouble(self, event: f.FileWritten) -> None:
        """Count it: nobody waits, but the file must be known before it is read again."""
        for flight in self.flights.ended(event.token, event.error):
            self.written = flight.end_after
        if self.flights.must_cut:
            self.cut_to = self.cut_to or self.flights.queue[0].end_before
            self.flights.take_back(self.writers)
        self._settle()

    def _begin_again(self, _: e.RetryDue) -> None:
        """Owe the disk the cut first; then read everything again."""
        if self.busy:
            return
        self.trouble_told = False
        if self.cut_to is not None:
            self._cut(self.cut_to)
            return
        self.role = Role.RECOVERING
        self._out.append(e.ListingWanted(self.key))

    # ---- durability ----------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Start the sync or the checkpoint that is due, if nothing holds it up."""
        if self.role not in (Role.LEADER, Role.OFFLINE) or self.cut_to or self.flights.error:
            return
        durable = self.durable
        self._plan_checkpoint()
        planned = durable.checkpoint
        if planned is not None and planned.token < 0 and planned.end[0] <= durable.end[0]:
            durable.send_checkpoint(self.next_token(), self._out)
        waits = durable.checkpoint is not None and durable.checkpoint.token < 0
        wants_sync = waits or self.config.durability is Durability.GROUP_FSYNC
        if wants_sync and not durable.syncing and not durable.failed and durable.end[0] < self.written[0]:
            tokens = [self.next_token() for _ in durable.unsynced]
            durable.sync(self.written, tokens, self._out)

    def _plan_checkpoint(self) -> None:
        if self.bytes_since_checkpoint >= self.config.checkpoint_bytes and not self.checkpoint_told:
            # The server asks for it when its time has come: each is a sync of all since the last one.
            self.checkpoint_told = True
            self._out.append(e.CheckpointWanted(self.key))
        if self.checkpoint_wanted and self.durable.checkpoint is None and not self.durable.failed:
            self.checkpoint_wanted, self.bytes_since_checkpoint = False, 0
            self.checkpoint_told = False
            body = CheckpointBody.of(self.log, self.epochs, self.writers, self.log.end_offset)
            self.durable.decide(self.log.end, body)

    def _synced(self, event: f.FileSynced) -> None:
        if event.token in self.asked:
            self._asked_done(event)
            return
        if self.durable.synced(event, self.log.end_offset):
            if not self.durable.failed:
                self._commit()
            elif self.config.durability is Durability.PAGE_CACHE:
                self._tell_failed_checkpoint("cannot make the log durable")
                self._give_up_checkpoint()
            elif self.role is not Role.TROUBLED:
                # Nothing is cut: an earlier process may have acknowledged it. Recovery writes it anew.
                self._fall("cannot make the log durable")
        self._settle()
        self._go_on()

    def _replaced(self, event: f.FileReplaced) -> None:
        if event.token in self.asked:
            self._asked_done(event)
            return
        written = self.durable.replaced(event)
        self._remove_given_up()
        if not written and self.role is Role.ACTIVATING:
            assert event.error is not None
            self._fall(f"cannot write the epoch history: {event.error.value}")
        elif self.role is Role.ACTIVATING:
            self._activate_on_disk()
        elif event.error is not None:
            self._tell_failed_checkpoint(f"cannot write it: {event.error.value}")
        self.checkpoint_failing = self.checkpoint_failing and not written
        if not self.checkpoint_wanted or not written:
            self._tell_checkpoint()
        self._settle()
        self._go_on()

    def _activate_on_disk(self) -> None:
        """Send the history, with what the disk is known to hold; behind a checkpoint in flight."""
        if self.durable.base.epochs == tuple(self.epochs.entries):
            self._lead()
        elif self.durable.checkpoint is None:
            self.durable.decide(self.durable.base.end, self.durable.base.with_epochs(self.epochs))
            self.durable.send_checkpoint(self.next_token(), self._out)

    # ---- retention -----------------------------------------------------------------------------

    def _retain(self, event: e.RetentionDue) -> None:
        """Give up old segments: readers no more, then a checkpoint, then the files.

        In this order no end of the process or of the power leaves a log with a hole.
        """
        active = self.log.active
        if self.cut_to is not None or self.flights.queue:
            return  # the next round will do
        if active.size_bytes and active.max_timestamp_ms < event.before_ms:
            self._roll()
        expired = self.log.expired(event.before_ms)
        # What is not committed yet stays: its writers wait.
        expired = [segment for segment in expired if segment.end_offset <= self.high_watermark]
        if expired:
            self.given_up += self.log.give_up(len(expired))
            self.checkpoint_wanted = True
            self._go_on()

    def _remove_given_up(self) -> None:
        """Remove the files that the checkpoint on the disk no longer counts."""
        gone = [s for s in self.given_up if s.base_offset < self.durable.base.start_offset]
        self.given_up = [s for s in self.given_up if s.base_offset >= self.durable.base.start_offset]
        for segment in gone:
            for name in (self.log.file(segment), f"{self.folder}/{index_name(segment.base_offset)}"):
                token = self.next_token()
                self.asked[token] = Asked.OLD
                self._out.append(f.RemoveFile(token, name))

    def _give_up_checkpoint(self) -> None:
        """An older checkpoint stays good: recovery will look at more bytes."""
        self.durable.forget_plan()
        self._tell_checkpoint()

    def _tell_failed_checkpoint(self, text: str) -> None:
        if not self.checkpoint_failing:
            self.checkpoint_failing = True
            self._out.append(e.CheckpointFailed(self.key, text))

    def _tell_checkpoint(self) -> None:
        if self.checkpoint_asked:
            self.checkpoint_asked = False
            self._out.append(e.CheckpointDone(self.key))

    def _ask_checkpoint(self, _: e.CheckpointAsked) -> None:
        self.checkpoint_told = False
        up_to_date = self.durable.base.end == self.log.end and self.durable.checkpoint is None
        if up_to_date or self.durable.failed:
            self._out.append(e.CheckpointDone(self.key))
            return
        self.checkpoint_wanted, self.checkpoint_asked = True, True
        self._go_on()

    def _no_checkpoint(self, _: e.CheckpointAsked) -> None:
        """The one on the disk is the best there is."""
        self.checkpoint_told = False
        self._out.append(e.CheckpointDone(self.key))
