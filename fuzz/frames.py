"""Invariant tested: frames come out as they went in, however they are cut, read late, hinted or shrunk.

    python fuzz/frames.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/frames.py canary        (must fail: the buffer forgets where the first frame begins)

The buffer is used as the hub uses it: room is taken and filled in part, some frames are left for later.
There is always room, memory stays in proportion to what came, and a bad length ends the stream behind the
good ones.
"""

from __future__ import annotations

import random
import struct

from trials import Target, run_target

from flussd.core.edge import frames as f

LENGTHS = (8, 9, 100, 1000, 8185, 8200, 70_000, 1_100_000)


def make(draw: random.Random) -> bytes:
    """Return a number by which a stream is cut, and the stream: frames, and what may come behind them."""
    bodies = [draw.randbytes(draw.choice(LENGTHS)) for _ in range(draw.randrange(1, 12))]
    data = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    chance = draw.random()
    if chance < 0.2:
        data += struct.pack(">i", draw.choice((-1, 0, 7, f.REQUEST_BYTES_MAX + 1))) + bytes(3)
    elif chance < 0.3:
        data = data[: draw.randrange(len(data))]
    elif chance < 0.4:
        data += draw.randbytes(draw.choice((1, 4, 40)))
    return draw.randbytes(4) + data


def frames_of(data: bytes) -> tuple[list[bytes], bool]:
    """Return the whole frames at the start of *data*, and whether a bad length follows them."""
    bodies, at = [], 0
    while at + 4 <= len(data):
        (size_bytes,) = struct.unpack_from(">i", data, at)
        if not f.FRAME_HEAD_REQUEST_BYTES <= size_bytes <= f.REQUEST_BYTES_MAX:
            return bodies, True
        if at + 4 + size_bytes > len(data):
            break
        bodies.append(data[at + 4 : at + 4 + size_bytes])
        at += 4 + size_bytes
    return bodies, False


def check(cut: bytes) -> str:
    """Pass one stream through a buffer; return how that ended."""
    draw, data = random.Random(cut[:4]), cut[4:]
    bodies, is_bad = frames_of(data)
    buffer, got, at = f.FrameBuffer(), [], 0
    ended = "whole"
    while at < len(data) or len(got) < len(bodies) or (is_bad and ended == "whole"):
        hint = draw.choice((1, 1, 1, 5000, 200_000))
        room = buffer.writable(hint)
        assert len(room) >= hint
        limit = max(f.KEPT_BUFFER_BYTES, f.BELIEVED_BYTES, 3 * len(data)) + 2 * hint
        assert len(buffer._buffer) <= limit, len(buffer._buffer)
        count = min(len(room), len(data) - at, draw.choice((1, 3, 4, 5000, 1 << 21)))
        room[:count] = data[at : at + count]
        at += count
        buffer.received(count)
        taken_max = draw.choice((0, 1, 2, 100)) if at < len(data) else 100
        try:
            for taken, frame in enumerate(buffer.frames(), 1):
                got.append(bytes(frame))
                if taken >= taken_max:
                    break
        except f.FrameError:
            assert is_bad
            ended = "bad behind good ones"
            break
        if draw.random() < 0.1:
            buffer.shrink()
    assert bodies == got
    assert is_bad == (ended != "whole")
    return ended


def break_it() -> None:
    """Break the code under test, as the canary says."""
    f.FrameBuffer._missing_bytes = lambda _self, _begun_bytes: 1
    moved = f.FrameBuffer._move

    def forgetful(self: f.FrameBuffer, begun_bytes: int, wanted_bytes: int) -> None:
        moved(self, begun_bytes, wanted_bytes)
        self._start = min(1, begun_bytes)

    f.FrameBuffer._move = forgetful


TARGET = Target("frames", make, check, break_it, 2_500)

if __name__ == "__main__":
    run_target(TARGET)
