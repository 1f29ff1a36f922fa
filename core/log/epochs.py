"""Which leader epoch began where: (epoch, first offset), both ascending.

Rule 1 of the replication protocol: an entry is durable before the first batch that it covers, a
follower never labels bytes by the current epoch, and truncation and recovery trim the history.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class EpochHistory:
    """The epochs of one bucket, oldest first."""

    entries: list[tuple[int, int]] = attrs.Factory(list)

    @property
    def last_epoch(self) -> int:
        """The newest epoch, -1 when there is none."""
        return self.entries[-1][0] if self.entries else -1

    def begin(self, epoch: int, start_offset: int) -> bool:
        """Note that *epoch* begins at *start_offset*; return whether that is new.

        An epoch that wrote nothing is replaced: it covers no batch.
        """
        if self.entries and self.entries[-1][0] >= epoch:
            assert self.entries[-1][0] == epoch, (
                f"epoch history: expected an epoch after {self.entries[-1][0]}, got {epoch}"
            )
            return False
        while self.entries and self.entries[-1][1] >= start_offset:
            self.entries.pop()
        self.entries.append((epoch, start_offset))
        return True

    def truncate(self, end_offset: int) -> None:
        """Forget the epochs that cover nothing below *end_offset*."""
        while self.entries and self.entries[-1][1] >= end_offset and len(self.entries) > 1:
            self.entries.pop()

    def epoch_of(self, offset: int) -> int:
        """Return the epoch that covers *offset*, -1 when none does."""
        for epoch, start_offset in reversed(self.entries):
            if start_offset <= offset:
                return epoch
        return -1

    def clone(self) -> EpochHistory:
        """Return a copy that shares nothing."""
        return EpochHistory(list(self.entries))
