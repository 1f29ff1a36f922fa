"""The checkpoint of one bucket: from where recovery must look, and what holds there.

One small file, replaced as a whole: epoch history, writers, watermark, and an end of the log that was
durable when it was written. Everything behind that end is scanned after any kind of stop; when there
is nothing behind it, the stop was clean.
"""

from __future__ import annotations

from array import array
from typing import Any

import attrs

from flussd.core.log.epochs import EpochHistory
from flussd.core.log.index import SparseIndex
from flussd.core.log.log import End, Log
from flussd.core.log.sealed import seal, unseal
from flussd.core.log.writers import Writers

CHECKPOINT_NAME = "checkpoint"
VERSION = 1


@attrs.frozen
class CheckpointBody:
    """What a checkpoint file tells, as JSON values; *end* names the active segment of that moment."""

    end: End = (0, 0, 0, -1)
    high_watermark: int = 0
    epochs: tuple[tuple[int, int], ...] = ()
    writers: list[list[object]] = attrs.Factory(list)
    sparse: tuple[list[int], list[int], list[int]] = ([], [], [])
    start_offset: int = 0  # segments that end before it are given up, though their files may be there

    @classmethod
    def of(cls, log: Log, epochs: EpochHistory, writers: Writers, high_watermark: int) -> CheckpointBody:
        """Return the body for the present end of *log*."""
        sparse = log.active.sparse
        return cls(
            log.end,
            min(high_watermark, log.end_offset),
            tuple(epochs.entries),
            writers.to_json(),
            (sparse.offsets.tolist(), sparse.positions.tolist(), sparse.timestamps.tolist()),
            log.start_offset,
        )

    def with_epochs(self, epochs: EpochHistory) -> CheckpointBody:
        """Return the same body with a newer epoch history: it may run ahead of the log's end."""
        return attrs.evolve(self, epochs=tuple(epochs.entries))

    def encode(self) -> bytes:
        """Return the file's content."""
        value: dict[str, Any] = {
            "version": VERSION,
            "end": list(self.end),
            "high_watermark": self.high_watermark,
            "start_offset": self.start_offset,
            "epochs": [list(entry) for entry in self.epochs],
            "writers": self.writers,
            "sparse": [list(column) for column in self.sparse],
        }
        return seal(value)

    @classmethod
    def decode(cls, data: bytes) -> CheckpointBody | None:
        """Return the body in *data*; None when there is none, or it is damaged."""
        told = unseal(data)
        if told is None or told.get("version") != VERSION:
            return None
        end_offset, base_offset, size_bytes, max_timestamp_ms = told["end"]
        offsets, positions, timestamps = told["sparse"]
        return cls(
            (end_offset, base_offset, size_bytes, max_timestamp_ms),
            told["high_watermark"],
            tuple((epoch, start_offset) for epoch, start_offset in told["epochs"]),
            told["writers"],
            (offsets, positions, timestamps),
            told["start_offset"],
        )

    def sparse_index(self) -> SparseIndex:
        """Return the index of the segment that was active."""
        offsets, positions, timestamps = self.sparse
        return SparseIndex(array("q", offsets), array("q", positions), array("q", timestamps))
