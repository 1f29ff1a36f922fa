"""Room in the registry's log: zeros written ahead of the groups, so that a full disk is met in time.

A change is executed only when its record is sure to fit into bytes that the file has already. Where it
does not, zeros are written behind them first, and when the disk refuses those, nothing was executed and
nothing need be taken back. Recovery takes the zeros for the end. What this cannot promise: a file system
that copies on write may refuse to overwrite zeros, too; registry.py then waits with the group in hand.
"""

from __future__ import annotations

from typing import Final

import attrs

from flussd.core import files as f
from flussd.core.registry.log import RECORD_BYTES

ROOM_BYTES: Final = 64 * 1024
"""Zeros ahead of a new log, and of what a change needs: some thirty new tables, for one write more."""

REFUSALS: Final = frozenset({f.DiskError.FULL, f.DiskError.DENIED, f.DiskError.TOO_MANY_FILES})
"""Errors that say: not now. Bytes that were written before are good, and may be written again."""

NOT_OPENED: Final = REFUSALS - {f.DiskError.FULL}
"""Errors of a sync that never began; after one that failed nothing is known of the bytes."""


def only_refused(event: object) -> bool:
    """Return whether *event* tells of a disk that may take the same later, with nothing lost."""
    if isinstance(event, f.FileSynced):
        return event.error in NOT_OPENED
    return isinstance(event, f.FileWritten | f.FileReplaced) and event.error in REFUSALS


@attrs.define(eq=False)
class Room:
    """Bytes [position, end) of the log are zeros, and the next group goes to *position*."""

    position: int = 0
    end: int = 0
    asked: int = 0  # the end that it will have once the zeros on their way are written

    def has(self, need_bytes: int) -> bool:
        """Return whether a group of transactions of *need_bytes* fits; one of 0 is not written."""
        return not need_bytes or self.position + RECORD_BYTES + need_bytes <= self.end

    def missing(self, need_bytes: int, more_bytes: int) -> tuple[int, bytes]:
        """Return which zeros to write so that there is room for *need_bytes* and *more_bytes*."""
        self.asked = max(self.end + 1, self.position + RECORD_BYTES + need_bytes + more_bytes)
        return self.end, bytes(self.asked - self.end)

    def used(self, size_bytes: int) -> None:
        """A group was written."""
        self.position += size_bytes
        assert self.position <= self.end, "a group needs no more room than it was promised"
