"""Invariant tested: a produce request is read as protobuf reads it, or it is Malformed; nothing else.

    python fuzz/produce_request.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/produce_request.py canary        (must fail: numbers lose their top bit on purpose)

Requests of real shape are changed in their bytes: flipped, cut, doubled, padded. What the parser refuses
and protobuf takes must be a known field in a wrong or padded tag, or a group.
"""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.message import DecodeError
from trials import Target, run_target

from flussd.core.wire import hot, messages


def request(draw: random.Random) -> bytes:
    """Return a request with some buckets."""
    message = messages.ProduceLogRequest(
        acks=draw.choice((-1, 0, 1, 2)), table_id=draw.getrandbits(draw.randrange(1, 63)), timeout_ms=30000
    )
    for _ in range(draw.randrange(4)):
        bucket = message.buckets_req.add(
            bucket_id=draw.randrange(300), records=draw.randbytes(draw.choice((0, 3, 200)))
        )
        if draw.random() < 0.5:
            bucket.partition_id = draw.getrandbits(40) - (1 << 39)
    return message.SerializeToString()


def damage(data: bytearray, draw: random.Random) -> None:
    """Change *data* in one way."""
    at = draw.randrange(len(data) + 1)
    piece = bytes(data[at : at + draw.randrange(20)])
    match draw.randrange(6):
        case 0 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at:at] = piece
        case 3:
            del data[at : at + len(piece)]
        case 4:
            data[at:at] = draw.choice(
                (b"\x28\x05", b"\x32\x01x", b"\x3d1234", b"\x4112345678", b"\x80\x00")
            )
        case _ if at < len(data):
            data[at] = draw.choice((0, 1, 8, 0x10, 0x18, 0x1A, 0x22, 0x7F, 0x80, 0xFF))


def by_protobuf(data: bytes) -> tuple[Any, ...] | None:
    """Return what protobuf reads; None when it refuses."""
    message = messages.ProduceLogRequest()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    if not message.IsInitialized():
        return None
    buckets = tuple(
        (b.partition_id if b.HasField("partition_id") else None, b.bucket_id, b.records)
        for b in message.buckets_req
    )
    return message.acks, message.table_id, message.timeout_ms, buckets


def has_later_fields(body: hot.ProduceBody, data: bytes) -> bool:
    """Whether *data* may hold fields 4 and 5 of a bucket, which version 0 does not know."""
    known = messages.ProduceLogRequest(acks=body.acks, table_id=body.table_id, timeout_ms=body.timeout_ms)
    for partition_id, bucket, records in body.buckets:
        known.buckets_req.add(partition_id=partition_id, bucket_id=bucket, records=bytes(records))
    return known.SerializeToString() != data


def make(draw: random.Random) -> bytes:
    """Return a request, damaged or not."""
    data = bytearray(request(draw))
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        damage(data, draw)
    return bytes(data)


def check(data: bytes) -> str:
    """Read one request both ways; return how that ended."""
    expected = by_protobuf(data)
    try:
        body = hot.parse_produce(memoryview(data))
    except hot.Malformed as malformed:
        if expected is None:
            return "refused"
        if "wire type" not in str(malformed):
            raise
        return "refused, and taken by protobuf"
    if expected is None:  # text of a later version's field that is not UTF-8
        assert has_later_fields(body, data), data.hex()
        return "read, and refused by protobuf"
    buckets = tuple((p, b, bytes(r)) for p, b, r in body.buckets)
    assert expected == (*body[:3], buckets), data.hex()
    return "read"


def break_it() -> None:
    """Break the code under test, as the canary says."""
    hot._int64 = lambda number: number & ((1 << 63) - 1)


TARGET = Target("produce_request", make, check, break_it, 30_000)

if __name__ == "__main__":
    run_target(TARGET)
