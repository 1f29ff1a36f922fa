"""What of one bucket is on the disk for good: syncs, and the checkpoint that follows them.

A sync covers what was confirmed as written when it began. A checkpoint is decided first, at some end of
the log, and written when that end is durable: it never tells more than the disk holds. It emits effects
into the list that its replica passes, and learns of their ends through `synced` and `replaced`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from flussd.core import files as f
from flussd.core.log.checkpoint import CHECKPOINT_NAME, CheckpointBody
from flussd.core.log.log import End


@attrs.define(eq=False)
class Checkpointing:
    """A checkpoint on its way: decided at *end*, sent to the disk once that is durable."""

    end: End
    body: CheckpointBody
    token: int = -1  # of its ReplaceFile, once sent


@attrs.define(eq=False)
class Durable:
    """The durable part of one bucket's log; *base* is the checkpoint that the disk has."""

    folder: str
    end: End = (0, 0, 0, -1)
    base: CheckpointBody = attrs.Factory(CheckpointBody)
    unsynced: deque[str] = attrs.Factory(deque)  # files with bytes that no sync has covered
    syncing: dict[int, str] = attrs.Factory(dict)  # token -> file, of the sync in flight
    syncing_end: End | None = None
    failed: bool = False  # a sync failed: asking again proves nothing
    checkpoint: Checkpointing | None = None

    @property
    def busy(self) -> bool:
        """Whether an effect of ours is in flight."""
        return bool(self.syncing) or (self.checkpoint is not None and self.checkpoint.token >= 0)

    def wrote(self, file: str) -> None:
        """Note that *file* gets bytes that are not durable."""
        if not self.unsynced or self.unsynced[-1] != file:
            self.unsynced.append(file)

    def sync(self, written: End, tokens: list[int], out: list[Any]) -> None:
        """Begin a sync up to *written*, unless one is in flight; *tokens* has one for each file."""
        assert not self.syncing
        assert not self.failed
        assert self.unsynced
        self.syncing_end = written
        for token, file in zip(tokens, self.unsynced, strict=True):
            self.syncing[token] = file
            out.append(f.SyncFile(token, file))

    def synced(self, event: f.FileSynced, log_end_offset: int) -> bool:
        """Take a sync's end in; return whether *end* moved or the sync failed."""
        del self.syncing[event.token]
        self.failed = self.failed or event.error is not None
        if self.syncing or self.syncing_end is None:
            return False
        end, self.syncing_end = self.syncing_end, None
        if self.failed:
            return True
        self.end = end
        # The last file stays while it has bytes, written or on their way, beyond what was synced.
        while len(self.unsynced) > 1 and self.unsynced[0] != self._file_of(end):
            self.unsynced.popleft()
        if log_end_offset == end[0]:
            self.unsynced.clear()
        return True

    def _file_of(self, end: End) -> str:
        return f"{self.folder}/{end[1]:020d}.log"

    def decide(self, end: End, body: CheckpointBody) -> None:
        """Plan a checkpoint of what holds at *end*; replaces one that was not sent."""
        if self.checkpoint is None or self.checkpoint.token < 0:
            self.checkpoint = Checkpointing(end, body)

    def send_checkpoint(self, token: int, out: list[Any]) -> None:
        """Write the planned checkpoint, which is durable by now."""
        planned = self.checkpoint
        assert planned is not None
        assert planned.end[0] <= self.end[0]
        planned.token = token
        out.append(f.ReplaceFile(token, f"{self.folder}/{CHECKPOINT_NAME}", planned.body.encode()))

    def replaced(self, event: f.FileReplaced) -> bool:
        """Take the end of a checkpoint's writing in; return whether it is on the disk."""
        planned = self.checkpoint
        assert planned is not None
        assert planned.token == event.token
        self.checkpoint = None
        if event.error is not None:
            return False
        self.base = planned.body
        return True

    def forget_plan(self) -> None:
        """Give up a planned checkpoint: the log was cut below its end."""
        if self.checkpoint is not None and self.checkpoint.token < 0:
            self.checkpoint = None

    def truncated(self, end: End) -> None:
        """Take in that the log's files were cut at *end*, at or beyond what is durable."""
        file = self._file_of(end)
        self.unsynced = deque(name for name in self.unsynced if name <= file)
