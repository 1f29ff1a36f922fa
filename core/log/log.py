"""The log of one bucket as a structure: offsets, segments, and where the bytes of an offset are.

It orders nothing and asks for nothing: the replica tells it what was appended, and turns its answers
into effects. All ends are batch boundaries. The caller owes it appends in order, and truncations only
to ends it gave out.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TypeAlias

import attrs

from flussd.core.log.segment import Segment

End: TypeAlias = tuple[int, int, int, int]  # end offset, segment base, size of that segment, max timestamp


@attrs.frozen
class Located:
    """The batch that holds an offset begins at *position* of the segment, and this is verified."""

    segment: Segment
    position: int


@attrs.frozen
class LookFrom:
    """The batch is at or behind *position*, a batch boundary of the segment: read heads from there."""

    segment: Segment
    position: int


@attrs.define(eq=False)
class Log:
    """Segments in order, the last one active; *folder* is where their files are."""

    folder: str
    segments: list[Segment] = attrs.Factory(lambda: [Segment(0, 0)])

    @property
    def active(self) -> Segment:
        """The segment that grows."""
        return self.segments[-1]

    @property
    def start_offset(self) -> int:
        """The first offset that is still here."""
        return self.segments[0].base_offset

    @property
    def end_offset(self) -> int:
        """The next offset to give out."""
        return self.segments[-1].end_offset

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size_bytes for segment in self.segments)

    @property
    def end(self) -> End:
        """The present end, to come back to by `truncate`."""
        active = self.segments[-1]
        return active.end_offset, active.base_offset, active.size_bytes, active.max_timestamp_ms

    def file(self, segment: Segment) -> str:
        """Return the path of the segment's file."""
        return f"{self.folder}/{segment.name}"

    def roll(self) -> Segment:
        """Begin a new segment; return the one that grows no more."""
        full = self.active
        assert full.size_bytes, "only a segment with batches is rolled"
        self.segments.append(Segment(full.end_offset, full.end_offset, 0, full.max_timestamp_ms))
        if len(self.segments) > 2:
            self.segments[-3].dense.truncate(0)  # readers that far behind look by the sparse index
        return full

    def expired(self, before_ms: int) -> list[Segment]:
        """Return the segments at the start that hold nothing committed at *before_ms* or later.

        The active one stays, whatever its age.
        """
        count = 0
        while count < len(self.segments) - 1 and self.segments[count].max_timestamp_ms < before_ms:
            count += 1
        return self.segments[:count]

    def give_up(self, count: int) -> list[Segment]:
        """Forget the first *count* segments; return them."""
        assert 0 < count < len(self.segments)
        gone, self.segments = self.segments[:count], self.segments[count:]
        return gone

    def truncate(self, end: End) -> list[Segment]:
        """Go back to *end*; return the segments that are gone with that."""
        end_offset, base_offset, size_bytes, max_timestamp_ms = end
        gone = []
        while self.segments[-1].base_offset > base_offset:
            gone.append(self.segments.pop())
        assert self.segments[-1].base_offset == base_offset
        self.active.truncate(end_offset, size_bytes, max_timestamp_ms)
        return gone

    def segment_of(self, offset: int) -> Segment:
        """Return the segment that holds *offset*, which lies in [start, end)."""
        assert self.start_offset <= offset < self.end_offset
        n = bisect_right(self.segments, offset, key=lambda segment: segment.base_offset)
        return self.segments[n - 1]

    def locate(self, offset: int) -> Located | LookFrom:
        """Tell where the batch that holds *offset*, in [start, end), is or is to be looked for."""
        segment = self.segment_of(offset)
        if segment.dense.knows(offset):
            return Located(segment, segment.dense.at(offset))
        return LookFrom(segment, segment.sparse.before_offset(offset))

    def locate_timestamp(self, timestamp_ms: int) -> LookFrom | None:
        """Tell from where to look for the first batch committed at *timestamp_ms* or later."""
        for segment in self.segments:
            if segment.max_timestamp_ms >= timestamp_ms and segment.size_bytes:
                return LookFrom(segment, segment.sparse.before_timestamp(timestamp_ms))
        return None

    def clone(self) -> Log:
        """Return a copy that shares nothing."""
        return Log(self.folder, [segment.clone() for segment in self.segments])
