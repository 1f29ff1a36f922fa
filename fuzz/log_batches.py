"""Invariant tested: whatever a client sends as batches, only whole and right ones are kept, from the start.

    python fuzz/log_batches.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/log_batches.py canary        (must fail: checksums are believed on purpose)

Batches of every magic are flipped, cut, lengthened and put in any order. What is kept must be what a second
reader, written from the record formats, takes for whole batches; a problem keeps nothing and has a text.
"""

from __future__ import annotations

import random
import struct

from crc32c import crc32c
from trials import Target, run_target

from flussd.core.records import batch as b


def built(draw: random.Random) -> bytes:
    """Return one batch."""
    magic = draw.randrange(3)
    count = draw.choice((0, 1, 3, 1000))
    return b.build_batch(
        draw.randbytes(draw.choice((0, 1, 40))),
        record_count=count,
        writer_id=draw.choice((-1, 7, 1 << 40)),
        batch_sequence=draw.choice((-1, 0, 5)),
        base_offset=draw.getrandbits(40),
        magic=magic,
        append_only=draw.random() < 0.5,
        statistics=draw.randbytes(draw.choice((0, 9))) if magic else b"",
    )


def damage(data: bytearray, draw: random.Random) -> None:
    """Change *data* in one way."""
    at = draw.randrange(len(data) + 1)
    match draw.randrange(5):
        case 0 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at:at] = draw.randbytes(draw.randrange(60))
        case 3:
            del data[at : at + draw.randrange(60)]
        case _ if len(data) > b.MAGIC_AT:
            data[draw.choice((b.LENGTH_AT, b.MAGIC_AT))] = draw.randrange(256)


def make(draw: random.Random) -> bytes:
    """Return batches, damaged or not."""
    data = bytearray(b"".join(built(draw) for _ in range(draw.randrange(1, 5))))
    for _ in range(draw.choice((0, 1, 1, 2))):
        damage(data, draw)
    return bytes(data)


def whole_batches(data: bytes) -> list[int]:
    """Return where the whole batches at the start of *data* end, by the record formats alone."""
    ends, at = [], 0
    while at + 13 <= len(data):
        length, magic = struct.unpack_from("<ib", data, at + 8)
        covered_at = at + (29 if magic == b.MAGIC_MAX else 25)
        end = at + 12 + length
        if not 0 <= magic <= b.MAGIC_MAX or not covered_at + 23 <= end <= len(data):
            break
        (crc,) = struct.unpack_from("<I", data, covered_at - 4)
        if crc != crc32c(data[covered_at:end]):
            break
        at = end
        ends.append(at)
    return ends


def check(data: bytes) -> str:
    """Scan batches; return how that ended."""
    view = memoryview(data)
    found = b.scan_produced(view)
    assert found.kept_bytes == sum(head.size_bytes for head in found.heads) <= len(view)
    if found.problem is not None:
        assert not found.heads, found
        assert "expected" in found.problem_text, found.problem_text
        return found.problem.name
    at = 0
    for head in found.heads:
        assert head.position == at
        at += head.size_bytes
    ends = whole_batches(data)
    assert ends == [head.position + head.size_bytes for head in found.heads], (ends, found)
    rest = b.read_head(view, at)
    assert rest is None or at + rest.size_bytes > len(view), "a whole batch was left out"
    return "kept" if at == len(view) else "kept but for a cut one"


def break_it() -> None:
    """Break the code under test, as the canary says."""
    b.crc_is_right = lambda _view, _head: True


TARGET = Target("log_batches", make, check, break_it, 30_000)

if __name__ == "__main__":
    run_target(TARGET)
