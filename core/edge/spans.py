"""Answers made of file spans: read them all, check what was never checked, then encode and send.

One `Gathering` per SendSpans effect. The driver asks its disk for each span in order; reads on one
file keep their order with truncations, so an answer never mixes two histories of a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs

from flussd.core.connections import (
    FetchAnswer,
    FetchAnswerTable,
    ScanAnswer,
    SendSpans,
    Span,
    SpansUnreadable,
)
from flussd.core.files import DiskError
from flussd.core.records.batch import crc_is_right, heads_in, position_of
from flussd.core.records.predicate import keep_matching
from flussd.core.records.project import NotKnownYet, NotProjectable, Projections
from flussd.core.wire import hot
from flussd.core.wire.errors import ErrorCode

Parts: TypeAlias = list[bytes | memoryview]


@attrs.define(eq=False)
class Gathering:
    """The bytes of one SendSpans, as they come in; a slot is an answer's position in *answers*."""

    effect: SendSpans
    answers: Sequence[FetchAnswer | ScanAnswer]
    outstanding_count: int
    chunks: list[list[bytes]]
    unreadable: list[SpansUnreadable] = attrs.Factory(list)
    bad: dict[int, tuple[ErrorCode, str]] = attrs.Factory(dict)

    @classmethod
    def of(cls, effect: SendSpans) -> Gathering:
        """Begin to gather *effect*."""
        answers: Sequence[FetchAnswer | ScanAnswer]
        if isinstance(effect.answer, ScanAnswer):
            answers = (effect.answer,)
        else:
            answers = [bucket for table in effect.answer for bucket in table.buckets]
        chunks = [[b""] * len(answer.spans) for answer in answers]
        return cls(effect, answers, sum(map(len, chunks)), chunks)

    def spans(self) -> Iterator[tuple[int, int, Span]]:
        """Yield each slot with the span to read for it, and which of its spans that is."""
        for slot, answer in enumerate(self.answers):
            for n, span in enumerate(answer.spans):
                yield slot, n, span

    def last_spans(self) -> Iterator[Span]:
        """Yield where each bucket's part of a fetch ends; a scan does not go on."""
        if not isinstance(self.effect.answer, ScanAnswer):
            for slot, answer in enumerate(self.answers):
                if answer.spans and slot not in self.bad:
                    yield answer.spans[-1]

    def filled(self, slot: int, n: int, data: bytes, error: DiskError | None) -> bool:
        """Take what one read gave; return True when it was the last one."""
        answer = self.answers[slot]
        file, position, size_bytes = answer.spans[n]
        if error is not None:
            self._refuse(slot, file, position, ErrorCode.LOG_STORAGE_EXCEPTION, error.value)
        elif len(data) != size_bytes:
            text = f"expected {size_bytes} bytes, got {len(data)}"
            self._refuse(slot, file, position, ErrorCode.LOG_STORAGE_EXCEPTION, text)
        else:
            whole_bytes = _checked(data) if answer.verify else size_bytes
            # What a fetch gets before the first bad batch is good, and is sent; it comes back for the
            # rest, and learns of it then. A scan does not come back.
            if not whole_bytes or (whole_bytes < size_bytes and isinstance(answer, ScanAnswer)):
                at = position + whole_bytes
                self._refuse(slot, file, at, ErrorCode.CORRUPT_MESSAGE, "checksum mismatch")
            self.chunks[slot][n] = data[:whole_bytes]
        self.outstanding_count -= 1
        return self.outstanding_count == 0

    def _refuse(self, slot: int, file: str, position: int, code: ErrorCode, text: str) -> None:
        self.bad[slot] = (code, f"{file} at {position}: {text}")
        self.unreadable.append(SpansUnreadable(file, position, text))

    def encode(self, projections: Projections) -> Parts:
        """Return the body of the answer, in parts ready for one gathered send."""
        if isinstance(self.effect.answer, ScanAnswer):
            return self._scan(self.effect.answer)
        return self._fetch(self.effect.answer, projections)

    def _fetch(self, asked: Sequence[FetchAnswerTable], projections: Projections) -> Parts:
        tables = []
        slot = 0
        for table in asked:
            buckets = []
            for answer in table.buckets:
                buckets.append(self._result(answer, slot, projections))
                slot += 1
            tables.append(hot.FetchTableResult(table.table_id, tuple(buckets)))
        return hot.fetch_response_parts(tables)

    def _result(self, answer: FetchAnswer, slot: int, projections: Projections) -> hot.FetchBucketResult:
        error_code, error_text = self.bad.get(slot, (answer.error_code, answer.error_text))
        records: Parts = list(self.chunks[slot])
        filtered_end_offset = -1
        if answer.filter is not None and not error_code:
            records, filtered_end_offset = keep_matching(records, answer.filter)
        if answer.projection is not None and not error_code:
            try:
                records = projections.apply(records, answer.projection, answer.limit_bytes)
            except NotKnownYet as problem:
                # The writer heard of the new column first; the reader asks for metadata, and comes back.
                error_code, error_text = ErrorCode.NOT_LEADER_OR_FOLLOWER, str(problem)
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
            filtered_end_offset=filtered_end_offset,
        )

    def _scan(self, answer: ScanAnswer) -> Parts:
        error_code, error_text = self.bad.get(0, (answer.error_code, answer.error_text))
        records: Parts = list(self.chunks[0])
        if records:
            first = memoryview(records[0])
            records[0] = first[position_of(first, answer.from_offset) :]
        return hot.scan_response_parts(records, error_code=error_code, error_text=error_text)


def _checked(data: bytes) -> int:
    """Return how many bytes of *data* are whole batches with right checksums, from its start."""
    view = memoryview(data)
    whole_bytes = 0
    for head in heads_in(view):
        if not crc_is_right(view, head):
            break
        whole_bytes += head.size_bytes
    return whole_bytes
