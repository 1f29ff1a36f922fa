"""Looking for a batch in a cold part of a log: read heads from a known boundary until it is found.

The answer to "where is offset N" or "what is the first batch at time T" for batches that no dense
index knows. A walk is a record that the tablet server steps with what it read; it never blocks.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from flussd.core.files import FileRead, ReadFile
from flussd.core.limits import INDEX_INTERVAL_BYTES
from flussd.core.log.log import LookFrom
from flussd.core.records.batch import BatchHead, read_head

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

For = TypeVar("For")
"""A request that waits for a walk."""

WALK_READ_BYTES: Final = INDEX_INTERVAL_BYTES
"""One read covers the distance of two sparse entries; heads beyond it cost one read each."""

HEAD_BYTES_MAX: Final = 56
"""The longest batch head, of magic 2."""


class Seek(enum.Enum):
    """What a walk looks for."""

    OFFSET = "the batch that holds an offset"
    TIMESTAMP = "the first batch committed at a time or later"


class WalkEnd(enum.Enum):
    """How a walk stands."""

    MORE = "read on at its position"
    FOUND = "its head is the batch"
    BEYOND = "no such batch up to the end"
    CORRUPT = "what should be a head is none"
    UNREADABLE = "the disk refused a read"


@attrs.define(eq=False)
class Walk:
    """A walk through one segment, at *position*, up to *end_position* (exclusive)."""

    seek: Seek
    target: int
    file: str
    segment_base: int
    position: int
    end_position: int
    head: BatchHead | None = None

    @classmethod
    def begin(cls, seek: Seek, target: int, file: str, start: LookFrom, end_position: int) -> Walk:
        """Begin at a boundary that an index gave."""
        return cls(seek, target, file, start.segment.base_offset, start.position, end_position)

    def wanted_bytes(self) -> int:
        """How much to read at *position* next."""
        return min(WALK_READ_BYTES, self.end_position - self.position)

    def look_at(self, data: bytes) -> WalkEnd:
        """Go through the heads in *data*, read at *position*."""
        view = memoryview(data)
        at = 0
        while self.position < self.end_position:
            if (
                len(view) - at < HEAD_BYTES_MAX
                and at
                and len(view) - at < self.end_position - self.position
            ):
                return WalkEnd.MORE
            head = read_head(view, at)
            if head is None:
                return WalkEnd.CORRUPT
            if self._is_it(head):
                self.head = head
                return WalkEnd.FOUND
            at += head.size_bytes
            self.position += head.size_bytes
            if at >= len(view):
                return WalkEnd.MORE if self.position < self.end_position else WalkEnd.BEYOND
        return WalkEnd.BEYOND

    def _is_it(self, head: BatchHead) -> bool:
        if self.seek is Seek.OFFSET:
            return head.base_offset + head.last_offset_delta >= self.target
        return head.commit_timestamp_ms >= self.target


@attrs.define(eq=False)
class Walks(Generic[For]):
    """The walks of one kind of request: one read after the other, until each ends."""

    server: TabletServer
    by_token: dict[int, tuple[Walk, For]] = attrs.Factory(dict)

    def go_on(self, walk: Walk, waiter: For) -> None:
        """Read at a walk's position, for *waiter*."""
        token = self.server.next_token()
        self.by_token[token] = (walk, waiter)
        self.server.emit(ReadFile(token, walk.file, walk.position, walk.wanted_bytes()))

    def ended(self, event: FileRead) -> tuple[Walk, For, WalkEnd] | None:
        """Take a read in; return how its walk ended, or None when another read was asked for."""
        walk, waiter = self.by_token.pop(event.token)
        end = walk.look_at(event.data) if event.error is None else WalkEnd.UNREADABLE
        if end is WalkEnd.MORE:
            self.go_on(walk, waiter)
            return None
        return walk, waiter, end
