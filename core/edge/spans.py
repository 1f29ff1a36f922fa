"""Answers made of file spans: read them all, check what was never checked, then encode and send.

One `Gathering` per SendSpans effect. The driver asks its disk for each span in order; reads on one
file keep their order with truncations, so an answer never mixes two histories of a log.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from flussd.core.connections import FetchAnswer, SendSpans, Span, SpansUnreadable
from flussd.core.files import DiskError
from flussd.core.records.batch import crc_is_right, read_head
from flussd.core.records.project import NotProjectable, Projections
from flussd.core.wire import hot
from flussd.core.wire.errors import ErrorCode


@attrs.define(eq=False)
class Gathering:
    """The bytes of one SendSpans, as they come in; slots are (table, bucket, span) positions."""

    effect: SendSpans
    outstanding_count: int
    chunks: dict[tuple[int, int], list[bytes]]
    unreadable: list[SpansUnreadable] = attrs.Factory(list)
    bad: dict[tuple[int, int], tuple[ErrorCode, str]] = attrs.Factory(dict)

    @classmethod
    def of(cls, effect: SendSpans) -> Gathering:
        """Begin to gather *effect*."""
        chunks = {
            (t, b): [b""] * len(bucket.spans)
            for t, table in enumerate(effect.tables)
            for b, bucket in enumerate(table.buckets)
            if bucket.spans
        }
        return cls(effect, sum(map(len, chunks.values())), chunks)

    def spans(self) -> Iterator[tuple[tuple[int, int], int, Span]]:
        """Yield each slot with the span to read for it."""
        for t, b in self.chunks:
            for n, span in enumerate(self.effect.tables[t].buckets[b].spans):
                yield (t, b), n, span

    def filled(self, slot: tuple[int, int], n: int, data: bytes, error: DiskError | None) -> bool:
        """Take what one read gave; return True when it was the last one."""
        answer = self.effect.tables[slot[0]].buckets[slot[1]]
        file, position, size_bytes = answer.spans[n]
        if error is not None:
            self._refuse(slot, file, position, ErrorCode.LOG_STORAGE_EXCEPTION, error.value)
        elif len(data) != size_bytes:
            text = f"expected {size_bytes} bytes, got {len(data)}"
            self._refuse(slot, file, position, ErrorCode.LOG_STORAGE_EXCEPTION, text)
        else:
            whole_bytes = _checked(data) if answer.verify else size_bytes
            # What was checked before the first bad batch is good, and is sent.
            if not whole_bytes:
                self._refuse(slot, file, position, ErrorCode.CORRUPT_MESSAGE, "checksum mismatch")
            self.chunks[slot][n] = data[:whole_bytes]
        self.outstanding_count -= 1
        return self.outstanding_count == 0

    def _refuse(self, slot: tuple[int, int], file: str, position: int, code: ErrorCode, text: str) -> None:
        self.bad[slot] = (code, f"{file} at {position}: {text}")
        self.unreadable.append(SpansUnreadable(file, position, text))

    def encode(self, projections: Projections) -> list[bytes | memoryview]:
        """Return the body of the fetch answer, in parts ready for one gathered send."""
        tables = []
        for t, table in enumerate(self.effect.tables):
            buckets = [self._result(answer, (t, b), projections) for b, answer in enumerate(table.buckets)]
            tables.append(hot.FetchTableResult(table.table_id, tuple(buckets)))
        return hot.fetch_response_parts(tables)

    def _result(
        self, answer: FetchAnswer, slot: tuple[int, int], projections: Projections
    ) -> hot.FetchBucketResult:
        error_code, error_text = answer.error_code, answer.error_text
        if slot in self.bad:
            error_code, error_text = self.bad[slot]
        records: list[bytes | memoryview] = list(self.chunks.get(slot, ()))
        if answer.projection is not None and not error_code:
            try:
                records = projections.apply(records, answer.projection)
            except NotProjectable as problem:
                error_code, error_text = ErrorCode.CORRUPT_MESSAGE, f"cannot project: {problem}"
        return hot.FetchBucketResult(
            answer.partition_id,
            answer.bucket,
            error_code=error_code,
            error_text=error_text,
            high_watermark=answer.high_watermark,
            log_start_offset=answer.log_start_offset,
            records=() if error_code else records,
        )


def _checked(data: bytes) -> int:
    """Return how many bytes of *data* are whole batches with right checksums, from its start."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        head = read_head(view, at)
        if head is None or at + head.size_bytes > len(view) or not crc_is_right(view, head):
            break
        at += head.size_bytes
    return at
