"""One file of a log: batches back to back, exactly as they travel, named by its first offset."""

from __future__ import annotations

from typing import Any

import attrs

from flussd.core.log.index import DenseIndex, SparseIndex
from flussd.core.log.sealed import seal, unseal

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"


def log_name(base_offset: int) -> str:
    """Return the file name of the segment that begins with *base_offset*."""
    return f"{base_offset:020d}{LOG_SUFFIX}"


def index_name(base_offset: int) -> str:
    """Return the name of its index file."""
    return f"{base_offset:020d}{INDEX_SUFFIX}"


def base_of(name: str) -> int | None:
    """Return the first offset that a segment's file *name* tells; None for other files."""
    stem, dot, suffix = name.partition(".")
    if dot + suffix != LOG_SUFFIX or len(stem) != 20 or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)


@attrs.define(eq=False)
class Segment:
    """What is known of one file: offsets [base_offset, end_offset) in bytes [0, size_bytes).

    *max_timestamp_ms* is the largest commit timestamp up to its end, -1 in an empty log.
    """

    base_offset: int
    end_offset: int
    size_bytes: int = 0
    max_timestamp_ms: int = -1
    sparse: SparseIndex = attrs.Factory(SparseIndex)
    dense: DenseIndex = attrs.Factory(DenseIndex)
    name: str = attrs.field(init=False)  # of its file; kept, because each write asks for it

    def __attrs_post_init__(self) -> None:
        self.name = log_name(self.base_offset)

    def append(self, batch_offset: int, end_offset: int, size_bytes: int, timestamp_ms: int) -> None:
        """Take in the next batch."""
        self.sparse.note(batch_offset, self.size_bytes, self.max_timestamp_ms)
        self.dense.add(batch_offset, self.size_bytes)
        self.size_bytes += size_bytes
        self.end_offset = end_offset
        if timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = timestamp_ms

    def truncate(self, end_offset: int, size_bytes: int, max_timestamp_ms: int) -> None:
        """Go back to an earlier end, which was a batch boundary."""
        self.end_offset, self.size_bytes = end_offset, size_bytes
        self.max_timestamp_ms = max_timestamp_ms
        self.sparse.truncate(size_bytes)
        self.dense.truncate(size_bytes)

    def index_file(self) -> bytes:
        """Return the content of the index file, for a segment that grows no more."""
        return seal(
            {
                "base_offset": self.base_offset,
                "end_offset": self.end_offset,
                "size_bytes": self.size_bytes,
                "max_timestamp_ms": self.max_timestamp_ms,
                "offsets": self.sparse.offsets.tolist(),
                "positions": self.sparse.positions.tolist(),
                "timestamps": self.sparse.timestamps.tolist(),
            }
        )

    @classmethod
    def from_index_file(cls, base_offset: int, size_bytes: int, data: bytes) -> Segment | None:
        """Return the segment that an index file tells of; None when it does not fit the log file."""
        told = unseal(data)
        if told is None or told.get("base_offset") != base_offset or told.get("size_bytes") != size_bytes:
            return None
        segment = cls(base_offset, told["end_offset"], size_bytes, told["max_timestamp_ms"])
        segment.sparse.offsets.extend(told["offsets"])
        segment.sparse.positions.extend(told["positions"])
        segment.sparse.timestamps.extend(told["timestamps"])
        return segment

    def clone(self) -> Segment:
        """Return a copy that shares nothing."""
        return Segment(
            self.base_offset,
            self.end_offset,
            self.size_bytes,
            self.max_timestamp_ms,
            self.sparse.clone(),
            self.dense.clone(),
        )

    def facts(self) -> dict[str, Any]:
        """Return what a digest and a dump show."""
        return {"base": self.base_offset, "end": self.end_offset, "bytes": self.size_bytes}
