"""Batches that tell who wrote them: every one is unique, so that a reader's find can be traced."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import attrs

from flussd.core.records.batch import HEAD_BYTES, BatchHead, build_batch, read_head
from flussd.runtime_sim.workload import rows
from flussd.runtime_sim.workload.rows import Values, Vector

_CLIENT_SHIFT: Final = 32
_INT: Final = struct.Struct("<i")


class Identity(NamedTuple):
    """Which batch it is: the *number*-th that client *client* wrote to its bucket."""

    client: int
    number: int

    @property
    def packed(self) -> int:
        """The value of the first column of all its rows."""
        return self.client << _CLIENT_SHIFT | self.number


@attrs.define(eq=False, repr=False)
class SentBatch:
    """A batch as a writer keeps it until it is acknowledged; it is sent the same way every time."""

    identity: Identity
    writer_id: int
    sequence: int
    schema_id: int
    values: Values
    vectors: tuple[Vector, ...]
    acks: int
    generation: int  # of the ledger, when its writer id was new
    data: bytes
    crc: int
    is_sent: bool = False
    was_oldest: bool = False  # when it was sent last
    sent_generation: int = 0
    send_count: int = 0

    @property
    def record_count(self) -> int:
        """How many rows it has."""
        return len(self.values)

    @property
    def facts(self) -> tuple[int, int, int, int, int]:
        """Checksum, writer id, sequence, schema id, number of rows."""
        return self.crc, self.writer_id, self.sequence, self.schema_id, len(self.values)

    def projected(self, columns: tuple[int, ...]) -> bytes:
        """Return what a reader of these columns must get behind the head."""
        wanted = [self.vectors[column] for column in columns if column < len(self.vectors)]
        return rows.arrow_body(len(self.values), wanted)


def make_batch(
    identity: Identity,
    *,
    writer_id: int,
    sequence: int,
    values: Values,
    filler: bytes,
    partition: str,
    added_columns: int,
    schema_id: int,
    acks: int,
    generation: int,
    magic: int,
    with_statistics: bool,
) -> SentBatch:
    """Build a batch; *added_columns* are those that its schema has beyond the first one."""
    count = len(values)
    vectors = [rows.longs(identity.packed, count), rows.integers(values)]
    vectors.append(rows.texts([filler, *[b""] * (count - 1)]))
    if partition:
        vectors.append(rows.texts([partition.encode()] * count))
    vectors += [rows.integers(values)] * added_columns
    data = build_batch(
        rows.arrow_body(count, vectors),
        record_count=count,
        schema_id=schema_id,
        writer_id=writer_id,
        batch_sequence=sequence,
        magic=magic,
        statistics=rows.statistics(values) if with_statistics and magic else b"",
    )
    head = read_head(memoryview(data), 0)
    assert head is not None
    return SentBatch(
        identity, writer_id, sequence, schema_id, values, tuple(vectors), acks, generation, data, head.crc
    )


def records_of(view: memoryview, head: BatchHead) -> memoryview:
    """Return what is behind the head and the statistics."""
    start = head.position + HEAD_BYTES[head.magic]
    if head.magic:
        start += max(0, int(_INT.unpack_from(view, start - 4)[0]))
    return view[start : head.position + head.size_bytes]


def identity_of(view: memoryview, head: BatchHead) -> Identity | None:
    """Return who wrote the batch of *head*, whose first column is there; None when it is none of ours."""
    packed = rows.first_long(records_of(view, head))
    if packed is None:
        return None
    return Identity(packed >> _CLIENT_SHIFT, packed & ((1 << _CLIENT_SHIFT) - 1))
