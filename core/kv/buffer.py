"""What the log took and the followers do not have yet: rows that only later puts may see.

A batch is here from the append on, until the high watermark passes its end (then its rows move to the
committed ones) or the log is cut before it (then it never was). The rows of one batch move together: logs
grow, are copied and are cut by whole batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs

Writes = dict[bytes, bytes | None]
"""Stored values by key; None: the key is gone."""


@attrs.frozen(eq=False)
class Buffered:
    """The changes of one batch, which ends before *end_offset*."""

    base_offset: int
    end_offset: int
    writes: Writes


@attrs.define(eq=False)
class Buffer:
    """Batches in the order of their offsets; *newest* has the last change of each key in them."""

    newest: Writes = attrs.Factory(dict)
    _batches: deque[Buffered] = attrs.Factory(deque)

    @property
    def end_offset(self) -> int | None:
        """Where the last batch ends; None when there is none."""
        return self._batches[-1].end_offset if self._batches else None

    def add(self, batch: Buffered) -> None:
        """Take a batch that the log took behind all others."""
        end_offset = self.end_offset
        assert end_offset is None or batch.base_offset >= end_offset, (batch.base_offset, end_offset)
        self._batches.append(batch)
        self.newest.update(batch.writes)

    def commit(self, high_watermark: int) -> Iterator[Writes]:
        """Yield the changes that are committed now, oldest first; they are not here any more."""
        while self._batches and self._batches[0].end_offset <= high_watermark:
            writes = self._batches.popleft().writes
            self._forget(writes)
            yield writes

    def _forget(self, writes: Writes) -> None:
        if not self._batches:
            self.newest.clear()
            return
        for key, value in writes.items():
            # A later batch may have changed the key: then its value is another object, or nothing again.
            if key in self.newest and self.newest[key] is value:
                del self.newest[key]

    def cut(self, end_offset: int) -> None:
        """Forget the batches that reach beyond *end_offset*; rare, so what is left is gone through."""
        if not self._batches or self._batches[-1].end_offset <= end_offset:
            return
        while self._batches and self._batches[-1].end_offset > end_offset:
            self._batches.pop()
        self.newest.clear()
        for batch in self._batches:
            self.newest.update(batch.writes)
