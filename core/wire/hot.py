"""Codecs of the messages that carry log data: no copies of payloads, in or out.

By hand where there is a payload: protobuf would copy it twice and cost ten times as much. Compared with
the protobuf classes by property tests. Unknown fields are skipped, the last of a repeated scalar wins.
What protobuf refuses raises Malformed, and for PRODUCE_LOG a little more does: a known field in another
wire type or behind a padded tag, and groups; no client writes these. Its caller owes it views of
single bytes (format "B"), and must not touch them while records that were parsed are in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from flussd.core.connections import ProduceAnswer

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5


class Malformed(ValueError):  # noqa: N818 - it names what the bytes are
    """Bytes that are not the message that they should be."""


class ProduceBucket(NamedTuple):
    """One bucket of a produce request."""

    partition_id: int | None
    bucket: int
    records: memoryview


class ProduceBody(NamedTuple):
    """A produce request."""

    acks: int
    table_id: int
    timeout_ms: int
    buckets: tuple[ProduceBucket, ...]


class FetchBucketResult(NamedTuple):
    """One bucket of a fetch answer: an error, or a watermark and records in chunks.

    *filtered_end_offset* is -1 where no filter dropped a batch behind the last record.
    """

    partition_id: int | None
    bucket: int
    error_code: int = 0
    error_text: str = ""
    high_watermark: int = -1
    log_start_offset: int = 0
    records: Sequence[memoryview | bytes] = ()
    filtered_end_offset: int = -1


class FetchTableResult(NamedTuple):
    """One table of a fetch answer."""

    table_id: int
    buckets: tuple[FetchBucketResult, ...]


# ---- reading ------------------------------------------------------------------------------------
# Each parser goes from *at* to *end* of one view; what runs over *end* is found behind its loop, what
# runs over the view is an IndexError, which the public parser turns into Malformed.

_MINUS_ONE: Final = b"\xff" * 9 + b"\x01"
_ALL_BITS: Final = 0xFFFFFFFFFFFFFFFF
_SHIFTS: Final = (7, 14, 21, 28, 35, 42, 49, 56, 63)
_SHORT_BYTES: Final = 5
"""protobuf takes no longer numbers as tags and sizes."""
_TAG_MAX: Final = 0xFFFFFFFF


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned 64-bit number and where the next byte is."""
    byte = view[at]
    if byte < 0x80:
        return byte, at + 1
    if byte == 0xFF and view[at : at + 10] == _MINUS_ONE:  # acks, follower id: twice as fast
        return _ALL_BITS, at + 10
    number = byte & 0x7F
    for shift in _SHIFTS:
        at += 1
        byte = view[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _ALL_BITS, at + 1
    raise Malformed(f"number that ends at byte {at}: expected at most 10 bytes, got more")


def _size(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return where the bytes behind the size at *at* begin and end."""
    size_bytes, start = _varint(view, at)
    stop = start + size_bytes
    if stop > end or start - at > _SHORT_BYTES:
        raise Malformed(f"size at byte {at}: expected at most {end - start} bytes, got {size_bytes}")
    return start, stop


def _skip(view: memoryview, at: int, end: int, known: int) -> int:
    """Return where the field behind the one at *at* begins; its number must be above *known*."""
    tag, value_at = _varint(view, at)
    number, wire_type = tag >> 3, tag & 7
    if number <= known or tag > _TAG_MAX or value_at - at > _SHORT_BYTES:
        raise Malformed(f"field at byte {at}: number {number} cannot have wire type {wire_type} here")
    if wire_type == VARINT:
        return _varint(view, value_at)[1]
    if wire_type == BYTES:
        return _size(view, value_at, end)[1]
    if wire_type == FIXED64:
        return value_at + 8
    if wire_type == FIXED32:
        return value_at + 4
    raise Malformed(f"field {number} at byte {at}: expected wire type 0, 1, 2 or 5, got {wire_type}")


def has_at_most(body: memoryview, field_count: int) -> bool:
    """Whether a message has no more fields, not counting those of its messages; False for bad ones."""
    at, end = 0, len(body)
    try:
        for _ in range(field_count):
            if at >= end:
                return True
            at = _skip(body, at, end, 0)
    except (IndexError, Malformed):
        return False
    return at >= end


def _int32(number: int) -> int:
    """Return the number's low 32 bits, signed, as protobuf does."""
    return ((number & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000 if number > 0x7FFFFFFF else number


def _int64(number: int) -> int:
    return number - 0x10000000000000000 if number > 0x7FFFFFFFFFFFFFFF else number


def _expect_end(what: str, at: int, end: int) -> None:
    if at != end:
        raise Malformed(f"{what}: expected to end at byte {end}, got a field that ends at {at}")


def parse_produce(body: memoryview) -> ProduceBody:
    """Parse a PRODUCE_LOG request; its records are views of *body*. Raises Malformed."""
    try:
        return _produce(body, len(body))
    except IndexError:
        raise Malformed(f"expected the rest of a field, got the end at byte {len(body)}") from None


def _produce(view: memoryview, end: int) -> ProduceBody:
    acks = table_id = timeout_ms = None
    buckets = []
    at = 0
    while at < end:
        tag = view[at]
        if tag == 0x22:
            at, stop = _size(view, at + 1, end)
            buckets.append(_produce_bucket(view, at, stop))
            at = stop
        elif tag == 0x08:
            acks, at = _varint(view, at + 1)
        elif tag == 0x10:
            table_id, at = _varint(view, at + 1)
        elif tag == 0x18:
            timeout_ms, at = _varint(view, at + 1)
        else:
            at = _skip(view, at, end, 4)
    _expect_end("request", at, end)
    if acks is None or table_id is None or timeout_ms is None:
        got = f"acks={acks}, table_id={table_id}, timeout_ms={timeout_ms}"
        raise Malformed(f"request: expected acks, table_id and timeout_ms, got {got}")
    return ProduceBody(_int32(acks), _int64(table_id), _int32(timeout_ms), tuple(buckets))


def _produce_bucket(view: memoryview, at: int, end: int) -> ProduceBucket:
    partition_id = bucket = records = None
    while at < end:
        tag = view[at]
        if tag == 0x1A:
            at, stop = _size(view, at + 1, end)
            records = view[at:stop]
            at = stop
        elif tag == 0x10:
            bucket, at = _varint(view, at + 1)
        elif tag == 0x08:
            partition_id, at = _varint(view, at + 1)
        else:
            at = _skip(view, at, end, 3)
    _expect_end("bucket", at, end)
    if bucket is None or records is None:
        got = f"bucket_id={bucket}, records={'none' if records is None else len(records)}"
        raise Malformed(f"bucket that ends at byte {end}: expected bucket_id and records, got {got}")
    return ProduceBucket(None if partition_id is None else _int64(partition_id), _int32(bucket), records)


# ---- writing ------------------------------------------------------------------------------------

_ONE_BYTE: Final = [bytes([number]) for number in range(128)]


def _number(number: int) -> bytes:
    """Return a varint; negative ones take ten bytes."""
    if 0 <= number < 128:
        return _ONE_BYTE[number]
    if 0 < number < 16384:
        return bytes((number & 0x7F | 0x80, number >> 7))
    number &= _ALL_BITS
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(tag: bytes, text: str) -> bytes:
    """Return a string field; half a surrogate, which JSON can carry, must not end the process."""
    data = text.encode("utf-8", "replace")
    return tag + _number(len(data)) + data


def error_response(code: int, text: str) -> bytes:
    """Encode an ErrorResponse; an empty text is left out."""
    head = b"\x08" + _number(code)
    return head + _text(b"\x12", text) if text else head


def produce_response(answers: Iterable[ProduceAnswer]) -> bytes:
    """Encode a PRODUCE_LOG response; success has no error code at all."""
    out = []
    for answer in answers:
        part = b"\x10" + _number(answer.bucket)
        if answer.partition_id is not None:
            part = b"\x08" + _number(answer.partition_id) + part
        if answer.error_code:
            part += b"\x18" + _number(answer.error_code)
            if answer.error_text:
                part += _text(b"\x22", answer.error_text)
        else:
            part += b"\x28" + _number(answer.base_offset)
        out.append(b"\x0a" + _number(len(part)) + part)
    return b"".join(out)


def fetch_response_parts(tables: Iterable[FetchTableResult]) -> list[bytes | memoryview]:
    """Encode a FETCH_LOG response in parts for one gathered send; records are not copied.

    What stands between two chunks of records is one part: a system call takes 1,024 of them.
    """
    parts: list[bytes | memoryview] = []
    for table in tables:
        inner: list[bytes | memoryview] = []
        heads = [b"\x08" + _number(table.table_id)]
        for bucket in table.buckets:
            records_bytes = 0 if bucket.error_code else sum(map(len, bucket.records))
            tail = b""
            if bucket.filtered_end_offset >= 0 and not bucket.error_code:
                tail = b"\x48" + _number(bucket.filtered_end_offset)
            heads.append(_fetch_bucket_head(bucket, records_bytes, len(tail)))
            if records_bytes:
                inner.append(b"".join(heads))
                inner += bucket.records
                heads = []
            if tail:
                heads.append(tail)
        if heads:
            inner.append(b"".join(heads))
        inner[0] = b"".join((b"\x0a", _number(sum(map(len, inner))), inner[0]))
        parts += inner
    return parts


def _fetch_bucket_head(bucket: FetchBucketResult, records_bytes: int, tail_bytes: int) -> bytes:
    """Return what stands before a bucket's records, with the size of the whole."""
    head = b"\x10" + _number(bucket.bucket)
    if bucket.partition_id is not None:
        head = b"\x08" + _number(bucket.partition_id) + head
    if bucket.error_code:
        head += b"\x18" + _number(bucket.error_code)
        if bucket.error_text:
            head += _text(b"\x22", bucket.error_text)
    else:
        head += b"\x28" + _number(bucket.high_watermark) + b"\x30" + _number(bucket.log_start_offset)
        # Present even when empty, as upstream writes it: only then does pyfluss ask again within a poll.
        head += b"\x42" + _number(records_bytes)
    return b"\x12" + _number(len(head) + records_bytes + tail_bytes) + head


def scan_response_parts(
    records: Sequence[memoryview | bytes], *, error_code: int = 0, error_text: str = ""
) -> list[bytes | memoryview]:
    """Encode a LIMIT_SCAN response of a log table, in parts; with an *error_code*, without records."""
    if error_code:
        return [error_response(error_code, error_text)]  # the same fields as in an ErrorResponse
    records_bytes = sum(map(len, records))
    if not records_bytes:
        return [b"\x18\x01"]
    return [b"\x18\x01\x22" + _number(records_bytes), *records]
