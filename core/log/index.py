"""Where batches are: a sparse index for a whole segment, a dense one for its newest batches.

The sparse index has an entry every 64 KiB: a batch boundary from which one short read finds any batch.
The dense one knows every boundary of what was appended, or checked in recovery, by this process.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

import attrs

from flussd.core.limits import DENSE_BATCHES, INDEX_INTERVAL_BYTES


def _longs() -> array[int]:
    return array("q")


@attrs.define(eq=False)
class SparseIndex:
    """Batch boundaries (first offset, position, largest timestamp before it), ascending."""

    offsets: array[int] = attrs.Factory(_longs)
    positions: array[int] = attrs.Factory(_longs)
    timestamps: array[int] = attrs.Factory(_longs)

    def note(self, offset: int, position: int, timestamp_before_ms: int) -> None:
        """Take in that a batch begins at *position* with *offset*; keeps about one in 64 KiB."""
        if position - (self.positions[-1] if self.positions else 0) >= INDEX_INTERVAL_BYTES:
            self.offsets.append(offset)
            self.positions.append(position)
            self.timestamps.append(timestamp_before_ms)

    def before_offset(self, offset: int) -> int:
        """Return the largest known boundary at or before the batch that holds *offset*."""
        n = bisect_right(self.offsets, offset)
        return self.positions[n - 1] if n else 0

    def before_timestamp(self, timestamp_ms: int) -> int:
        """Return a boundary before which every batch is older than *timestamp_ms*."""
        n = bisect_left(self.timestamps, timestamp_ms)
        return self.positions[n - 1] if n else 0

    def truncate(self, position: int) -> None:
        """Forget the boundaries at and beyond *position*."""
        n = bisect_left(self.positions, position)
        del self.offsets[n:], self.positions[n:], self.timestamps[n:]

    def clone(self) -> SparseIndex:
        """Return a copy that shares nothing."""
        return SparseIndex(self.offsets[:], self.positions[:], self.timestamps[:])


@attrs.define(eq=False)
class DenseIndex:
    """First offset and position of the newest batches of a segment, without gaps up to its end."""

    offsets: array[int] = attrs.Factory(_longs)
    positions: array[int] = attrs.Factory(_longs)

    def add(self, offset: int, position: int) -> None:
        """Take in the next batch."""
        self.offsets.append(offset)
        self.positions.append(position)
        if len(self.offsets) > 2 * DENSE_BATCHES:
            del self.offsets[:DENSE_BATCHES], self.positions[:DENSE_BATCHES]

    def knows(self, offset: int) -> bool:
        """Whether the batch that holds *offset* is one of ours, or lies beyond."""
        return bool(self.offsets) and offset >= self.offsets[0]

    def at(self, offset: int) -> int:
        """Return the position of the batch that holds *offset*, which `knows`."""
        return self.positions[bisect_right(self.offsets, offset) - 1]

    def boundary(self, position: int, end_position: int) -> int:
        """Return the last batch boundary at or before *position*; *end_position* is one too."""
        if position >= end_position:
            return end_position
        n = bisect_right(self.positions, position)
        return self.positions[n - 1] if n else position

    def next_boundary(self, position: int, end_position: int) -> int:
        """Return the first batch boundary after *position*."""
        n = bisect_right(self.positions, position)
        return self.positions[n] if n < len(self.positions) else end_position

    def truncate(self, position: int) -> None:
        """Forget the batches at and beyond *position*."""
        n = bisect_left(self.positions, position)
        del self.offsets[n:], self.positions[n:]

    def clone(self) -> DenseIndex:
        """Return a copy that shares nothing."""
        return DenseIndex(self.offsets[:], self.positions[:])
