"""What the log took and the followers do not have yet: rows that only later puts may see.

A batch is here from the append on, until the high watermark passes its end (then its rows move to the
committed ones) or the log is cut before it (then it never was). The rows of one batch move together: logs
grow, are copied and are cut by whole batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

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
    """Batches in the order of their offsets, and the last one of them that changed each key."""

    _batches: deque[Buffered] = attrs.Factory(deque)
    _last: dict[bytes, Buffered] = attrs.Factory(dict)

    @property
    def end_offset(self) -> int | None:
        """Where the last batch ends; None when there is none."""
        return self._batches[-1].end_offset if self._batches else None

    def newest(self, key: bytes, committed: Mapping[bytes, bytes]) -> bytes | None:
        """Return the last value of a key: of a batch here, or the *committed* one."""
        batch = self._last.get(key)
        return committed.get(key) if batch is None else batch.writes[key]

    def add(self, batch: Buffered) -> None:
        """Take a batch that the log took behind all others."""
        end_offset = self.end_offset
        assert end_offset is None or batch.base_offset >= end_offset, (batch.base_offset, end_offset)
        self._batches.append(batch)
        self._last.update(dict.fromkeys(batch.writes, batch))

    def commit(self, high_watermark: int) -> Iterator[Writes]:
        """Yield the changes that are committed now, oldest first; they are not here any more."""
        while self._batches and self._batches[0].end_offset <= high_watermark:
            batch = self._batches.popleft()
            if self._batches:
                for key in batch.writes:
                    if self._last[key] is batch:
                        del self._last[key]
            else:
                self._last.clear()
            yield batch.writes

    def cut(self, end_offset: int) -> None:
        """Forget the batches that reach beyond *end_offset*; rare, so what is left is gone through."""
        if not self._batches or self._batches[-1].end_offset <= end_offset:
            return
        while self._batches and self._batches[-1].end_offset > end_offset:
            self._batches.pop()
        self._last.clear()
        for batch in self._batches:
            self._last.update(dict.fromkeys(batch.writes, batch))
