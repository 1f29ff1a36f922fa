"""Hand-written codecs of the messages that carry log data: no copies of payloads, in or out.

protobuf would copy each payload twice and cost ten times as much. Compared byte for byte with the
protobuf classes by a property test. Unknown fields are skipped, the last of a repeated scalar wins, and
anything that cannot be parsed raises Malformed.
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
    """One bucket of a fetch answer: an error, or a watermark and records in chunks."""

    partition_id: int | None
    bucket: int
    error_code: int = 0
    error_text: str = ""
    high_watermark: int = -1
    log_start_offset: int = 0
    records: Sequence[memoryview | bytes] = ()


class FetchTableResult(NamedTuple):
    """One table of a fetch answer."""

    table_id: int
    buckets: tuple[FetchBucketResult, ...]


# ---- reading ------------------------------------------------------------------------------------


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned 64-bit number and where the next byte is."""
    byte = view[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = view[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + 1
        shift += 7
        if shift > 63:
            raise Malformed(f"number at byte {at}: longer than 10 bytes")


def _signed(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def parse_produce(body: memoryview) -> ProduceBody:
    """Parse a PRODUCE_LOG request; its records are views of *body*. About 2 us for one bucket."""
    acks = table_id = timeout_ms = None
    buckets = []
    at, end = 0, len(body)
    try:
        while at < end:
            tag = body[at]
            if tag == 0x22:
                size_bytes, at = _varint(body, at + 1)
                if at + size_bytes > end:
                    raise Malformed(f"field 4: {size_bytes} bytes at {at} of {end}")
                buckets.append(_produce_bucket(body[at : at + size_bytes]))
                at += size_bytes
            elif tag == 0x08:
                acks, at = _varint(body, at + 1)
            elif tag == 0x10:
                table_id, at = _varint(body, at + 1)
            elif tag == 0x18:
                timeout_ms, at = _varint(body, at + 1)
            else:
                at = _skip(body, at, 4)
    except IndexError:
        raise Malformed(f"cut within a field, at {end}") from None
    if acks is None or table_id is None or timeout_ms is None:
        raise Malformed("required fields: expected acks, table_id and timeout_ms")
    return ProduceBody(_signed(acks, 32), _signed(table_id, 64), _signed(timeout_ms, 32), tuple(buckets))


def _produce_bucket(view: memoryview) -> ProduceBucket:
    partition_id = bucket = records = None
    at, end = 0, len(view)
    while at < end:
        tag = view[at]
        if tag == 0x1A:
            size_bytes, at = _varint(view, at + 1)
            if at + size_bytes > end:
                raise Malformed(f"records: {size_bytes} bytes at {at} of {end}")
            records = view[at : at + size_bytes]
            at += size_bytes
        elif tag == 0x10:
            bucket, at = _varint(view, at + 1)
        elif tag == 0x08:
            partition_id, at = _varint(view, at + 1)
        else:
            at = _skip(view, at, 3)
    if bucket is None or records is None:
        raise Malformed("bucket: required fields are missing")
    if partition_id is not None:
        partition_id = _signed(partition_id, 64)
    return ProduceBucket(partition_id, _signed(bucket, 32), records)


def _skip(view: memoryview, at: int, known: int) -> int:
    """Return where the field behind the one at *at* begins.

    A field number up to *known* comes here only with another wire type than ours, or written longer
    than it need be: no client does either.
    """
    tag, at = _varint(view, at)
    number, wire_type = tag >> 3, tag & 7
    if number <= known:
        raise Malformed(f"field {number}: wire type {wire_type}")
    if wire_type == VARINT:
        _, at = _varint(view, at)
    elif wire_type == BYTES:
        size_bytes, at = _varint(view, at)
        at += size_bytes
    elif wire_type in (FIXED64, FIXED32):
        at += 8 if wire_type == FIXED64 else 4
    else:
        raise Malformed(f"field {number}: wire type {wire_type}")
    if at > len(view):
        raise Malformed(f"field {number} ends at {at} of {len(view)}")
    return at


# ---- writing ------------------------------------------------------------------------------------

_ONE_BYTE: Final = [bytes([number]) for number in range(128)]


def _number(number: int) -> bytes:
    """Return a varint; negative ones take ten bytes."""
    if 0 <= number < 128:
        return _ONE_BYTE[number]
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(tag: bytes, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return tag + _number(len(data)) + data


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
    """Encode a FETCH_LOG response in parts for one gathered send; records are not copied."""
    parts: list[bytes | memoryview] = []
    for table in tables:
        inner: list[bytes | memoryview] = [b"\x08" + _number(table.table_id)]
        for bucket in table.buckets:
            inner += _fetch_bucket(bucket)
        parts.append(b"\x0a" + _number(sum(map(len, inner))))
        parts += inner
    return parts


def _fetch_bucket(bucket: FetchBucketResult) -> list[bytes | memoryview]:
    head = b"\x10" + _number(bucket.bucket)
    if bucket.partition_id is not None:
        head = b"\x08" + _number(bucket.partition_id) + head
    if bucket.error_code:
        head += b"\x18" + _number(bucket.error_code)
        if bucket.error_text:
            head += _text(b"\x22", bucket.error_text)
        return [b"\x12" + _number(len(head)) + head]
    head += b"\x28" + _number(bucket.high_watermark) + b"\x30" + _number(bucket.log_start_offset)
    records_bytes = sum(map(len, bucket.records))
    if not records_bytes:
        return [b"\x12" + _number(len(head)) + head]
    head += b"\x42" + _number(records_bytes)
    return [b"\x12" + _number(len(head) + records_bytes) + head, *bucket.records]
