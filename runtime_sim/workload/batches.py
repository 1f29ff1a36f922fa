"""Batches that tell who wrote them: every payload is unique, so that a reader's find can be traced."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import attrs

from flussd.core.records.batch import HEAD_BYTES, BatchHead, build_batch, read_head

_MARK: Final = struct.Struct("<4siq")
_MAGIC: Final = b"FSIM"


class Identity(NamedTuple):
    """Which batch it is: the *number*-th that client *client* wrote to its bucket."""

    client: int
    number: int


@attrs.define(eq=False, repr=False)
class SentBatch:
    """A batch as a writer keeps it until it is acknowledged; it is sent the same way every time."""

    identity: Identity
    writer_id: int
    sequence: int
    record_count: int
    acks: int
    generation: int  # of the ledger, when its writer id was new
    data: bytes
    crc: int
    is_sent: bool = False
    was_oldest: bool = False  # when it was sent last
    sent_generation: int = 0
    send_count: int = 0


def make_batch(
    identity: Identity,
    *,
    writer_id: int,
    sequence: int,
    record_count: int,
    acks: int,
    generation: int,
    filler: bytes,
    magic: int,
) -> SentBatch:
    """Build a batch."""
    payload = _MARK.pack(_MAGIC, *identity) + filler
    data = build_batch(
        payload, record_count=record_count, writer_id=writer_id, batch_sequence=sequence, magic=magic
    )
    head = read_head(memoryview(data), 0)
    assert head is not None
    return SentBatch(identity, writer_id, sequence, record_count, acks, generation, data, head.crc)


def identity_of(view: memoryview, head: BatchHead) -> Identity | None:
    """Return who wrote the batch of *head*; None when it is none of ours."""
    at = head.position + HEAD_BYTES[head.magic]
    if at + _MARK.size > head.position + head.size_bytes:
        return None
    magic, client, number = _MARK.unpack_from(view, at)
    return Identity(client, number) if magic == _MAGIC else None
