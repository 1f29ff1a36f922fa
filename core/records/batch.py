"""Heads of log record batches: what is in a batch, whether it is whole, and what a leader stamps on it.

A batch is a head and opaque records (record formats, section 1). All a leader changes lies before its
checksum. Bytes come from clients and disks: nothing here raises for what they may be; a head that is
none is None, a batch that may not be stored is a BatchProblem.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

HEAD_BYTES: Final = (48, 52, 56)
"""By magic."""

LENGTH_AT: Final = 8
MAGIC_AT: Final = 12
TIMESTAMP_AT: Final = 13
LEADER_EPOCH_AT: Final = 21  # magic 2 only
BEFORE_LENGTH_BYTES: Final = 12
"""A batch's length counts from behind its offset and itself."""

MAGIC_MAX: Final = 2
APPEND_ONLY: Final = 1
NO_WRITER: Final = -1
NO_SEQUENCE: Final = -1

# base offset, length, magic, commit timestamp, [leader epoch,] crc, schema id, attributes,
# last offset delta, writer id, batch sequence, record count
_HEAD: Final = struct.Struct("<qibqIhbiqii")
_HEAD_2: Final = struct.Struct("<qibqiIhbiqii")
_START: Final = struct.Struct("<qib")
_LONG: Final = struct.Struct("<q")
_INT: Final = struct.Struct("<i")
_CRC: Final = struct.Struct("<I")
_COUNTS: Final = struct.Struct("<iqii")  # last offset delta, writer id, batch sequence, record count
_COVERED_FROM: Final = (25, 25, 29)
DELTA_BEHIND: Final = 3
"""Bytes between the start of what is covered and the last offset delta: schema id and attributes."""


class BatchHead(NamedTuple):
    """The head of the batch at *position* of its view; *size_bytes* is the whole batch.

    *leader_epoch* is -1 below magic 2. A tuple because it is made in half the time of a frozen class.
    """

    position: int
    size_bytes: int
    magic: int
    base_offset: int
    commit_timestamp_ms: int
    leader_epoch: int
    crc: int
    schema_id: int
    attributes: int
    last_offset_delta: int
    writer_id: int
    batch_sequence: int
    record_count: int


class BatchProblem(enum.Enum):
    """Why bytes may not be stored."""

    MAGIC = "unknown magic"
    LENGTH = "impossible length"
    CHECKSUM = "checksum mismatch"
    COUNT = "impossible record count or offset delta"


class Produced(NamedTuple):
    """What a produce request holds for a bucket: whole batches, or a problem.

    *kept_bytes* is where the last whole batch ends; a cut batch behind it is not to be stored.
    """

    heads: tuple[BatchHead, ...]
    kept_bytes: int
    problem: BatchProblem | None = None
    problem_text: str = ""


def read_head(view: memoryview, position: int) -> BatchHead | None:
    """Return the head at *position*, which is not negative; None when it is cut, or no head at all.

    The batch itself may reach beyond the view, and its checksum is not looked at.
    """
    left_bytes = len(view) - position
    if left_bytes < HEAD_BYTES[0]:
        return None
    magic = view[position + MAGIC_AT]
    if magic < MAGIC_MAX:
        base, length, _, time, crc, schema, attributes, delta, writer, sequence, count = _HEAD.unpack_from(
            view, position
        )
        epoch = -1
    elif magic == MAGIC_MAX and left_bytes >= HEAD_BYTES[MAGIC_MAX]:
        base, length, _, time, epoch, crc, schema, attributes, delta, writer, sequence, count = (
            _HEAD_2.unpack_from(view, position)
        )
    else:
        return None
    size_bytes = length + BEFORE_LENGTH_BYTES
    least_bytes = HEAD_BYTES[magic]
    if size_bytes < least_bytes or left_bytes < least_bytes or delta < 0 or count < 0:
        return None
    return BatchHead(
        position,
        size_bytes,
        magic,
        base,
        time,
        epoch,
        crc,
        schema,
        attributes,
        delta,
        writer,
        sequence,
        count,
    )


def heads_in(view: memoryview) -> Iterator[BatchHead]:
    """Yield the heads of the whole batches of *view*, from its start to the first that is not whole."""
    at = 0
    while at < len(view):
        head = read_head(view, at)
        if head is None or at + head.size_bytes > len(view):
            return
        yield head
        at += head.size_bytes


def count_batches(view: memoryview, most: int) -> int:
    """Return how many batches *view* holds by their lengths alone, whole or not; *most* + 1 for more."""
    at = count = 0
    while at + BEFORE_LENGTH_BYTES <= len(view) and count <= most:
        (length,) = _INT.unpack_from(view, at + LENGTH_AT)
        if length < 0:
            break
        at += BEFORE_LENGTH_BYTES + length
        count += 1
    return count


def position_of(view: memoryview, offset: int) -> int:
    """Return where the first whole batch that holds *offset*, or a later one, begins; else the end."""
    for head in heads_in(view):
        if head.base_offset + head.last_offset_delta >= offset:
            return head.position
    return len(view)


def crc_of(view: memoryview, head: BatchHead) -> int:
    """Return the checksum that the batch of *head* in *view* should have."""
    return crc32c(view[head.position + _COVERED_FROM[head.magic] : head.position + head.size_bytes])


def crc_is_right(view: memoryview, head: BatchHead) -> bool:
    """Whether the whole batch of *head*, which lies in *view*, has its checksum."""
    return crc_of(view, head) == head.crc


def scan_produced(view: memoryview) -> Produced:
    """Go through what a client sent for one bucket; about 2 us for a batch of 1 KiB.

    *view* is of single bytes. One bad batch refuses all; a cut one at the end is left out.
    """
    heads = []
    position, end = 0, len(view)
    while position < end:
        head = read_head(view, position)
        if head is None:
            problem = _problem(view, position)
            if problem is not None:
                return Produced((), 0, *problem)
            break  # cut within its head
        if position + head.size_bytes > end:
            break
        if not crc_is_right(view, head):
            details = f"expected {head.crc:#010x}, got {crc_of(view, head):#010x}"
            return Produced((), 0, BatchProblem.CHECKSUM, _text(BatchProblem.CHECKSUM, position, details))
        heads.append(head)
        position += head.size_bytes
    return Produced(tuple(heads), position)


def _problem(view: memoryview, position: int) -> tuple[BatchProblem, str] | None:
    """Tell why there is no head at *position*; None when it is only cut."""
    left_bytes = len(view) - position
    if left_bytes <= MAGIC_AT:
        return None
    _, length, magic = _START.unpack_from(view, position)
    if not 0 <= magic <= MAGIC_MAX:
        return BatchProblem.MAGIC, _text(BatchProblem.MAGIC, position, f"expected 0 to 2, got {magic}")
    least_bytes = HEAD_BYTES[magic] - BEFORE_LENGTH_BYTES
    if length < least_bytes:
        details = f"expected at least {least_bytes}, got {length}"
        return BatchProblem.LENGTH, _text(BatchProblem.LENGTH, position, details)
    if left_bytes < HEAD_BYTES[magic]:
        return None
    at = position + _COVERED_FROM[magic] + DELTA_BEHIND
    delta, _, _, count = _COUNTS.unpack_from(view, at)
    details = f"expected 0 or more, got offset delta {delta} and record count {count}"
    return BatchProblem.COUNT, _text(BatchProblem.COUNT, position, details)


def _text(problem: BatchProblem, position: int, details: str) -> str:
    return f"batch at byte {position}: {problem.value}: {details}"


def patches(
    head: BatchHead, base_offset: int, commit_timestamp_ms: int, leader_epoch: int
) -> tuple[tuple[int, bytes], ...]:
    """Return what a leader overwrites: (position in the view, bytes); all outside the checksum."""
    at = head.position
    stamped = ((at, _LONG.pack(base_offset)), (at + TIMESTAMP_AT, _LONG.pack(commit_timestamp_ms)))
    if head.magic == MAGIC_MAX:
        return (*stamped, (at + LEADER_EPOCH_AT, _INT.pack(leader_epoch)))
    return stamped


def build_batch(
    payload: bytes,
    *,
    record_count: int,
    schema_id: int = 1,
    writer_id: int = NO_WRITER,
    batch_sequence: int = NO_SEQUENCE,
    base_offset: int = 0,
    commit_timestamp_ms: int = 0,
    leader_epoch: int = -1,
    magic: int = 0,
    append_only: bool = True,
    statistics: bytes = b"",
) -> bytes:
    """Return a batch with its checksum, for tests and simulated clients.

    *payload* is what follows the head and the *statistics*, which magic 0 does not have.
    """
    assert magic or not statistics, "statistics: expected none with magic 0"
    delta = max(0, record_count - 1)
    attributes = APPEND_ONLY if append_only else 0
    before_payload = _INT.pack(len(statistics)) + statistics if magic else b""
    fields = (schema_id, attributes, delta, writer_id, batch_sequence, record_count)
    covered = struct.pack("<hbiqii", *fields) + before_payload + payload
    epoch = _INT.pack(leader_epoch) if magic == MAGIC_MAX else b""
    length = 1 + 8 + len(epoch) + 4 + len(covered)
    start = struct.pack("<qibq", base_offset, length, magic, commit_timestamp_ms)
    return start + epoch + _CRC.pack(crc32c(covered)) + covered
